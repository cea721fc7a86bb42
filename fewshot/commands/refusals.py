"""What was wrong with a command line or a config, in one line that names the key and what is accepted instead.

jsonargparse nests its messages as deep as the classes are nested. Every parser here raises a `Refusal` that knows which
parser it came from, so the innermost one can say which options, choices or classes it takes.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin

import jsonargparse
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fewshot.commands.accepted import accepted_classes, option_names, parser_of, short_key, type_hint, type_name
from fewshot.commands.parser import Parser, Refusal
from fewshot.files import CANNOT_WRITE, NO_ROOM

PACKAGE = Path(__file__).resolve().parent.parent
JSONARGPARSE = Path(jsonargparse.__file__).resolve().parent
KEY = re.compile(r'Parser key "([^"]+)"')
CLASS = re.compile(r"Problem with given class_path '([^']+)'")
VALUE = re.compile(r"(?:Got|Given) value: (.*)")
NOT_AN_OPTION = (
    re.compile(r"(?:Option|Key) '(?P<name>[^']+)' is not (?:accepted|expected)"),
    re.compile(r"Group '(?P<group>[^']+)' does not accept (?:option|nested key) '(?P<name>[^']+)'"),
    re.compile(r"Subcommand '(?P<command>[^']+)' does not accept (?:option|nested key) '(?P<name>[^']+)'"),
    re.compile(r"[Uu]nrecognized arguments: --(?P<name>[^\s=]+)"),
)
OF_A_CLASS = "class_path and init_args"
REQUIRED = (
    re.compile(r"the following arguments are required: (?P<names>.+)"),
    re.compile(r"(?:Key|Option) ['\"](?P<names>[^'\"]+)['\"] is required"),
)
OUT_OF_MEMORY = re.compile(
    r"can't allocate memory: you tried to allocate \d+ bytes|(?:CUDA )?out of memory.*?(?:\.|$)|Unable to allocate.*",
    re.I,
)
KILLED_WORKER = re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: \w+|exited unexpectedly)")


def refusal_of(error: BaseException, arguments: Sequence[str]) -> str | None:
    """One line for what a person can mend; None for a fault of the program, whose traceback is wanted.

    Args:
        error: what was raised.
        arguments: the command line.
    """
    if isinstance(error, argparse.ArgumentError):
        return parser_refusal(error, arguments)
    if isinstance(error, OmegaConfBaseException):
        where = str(getattr(error, "full_key", None) or "")
        message = re.sub(r"'\.+", "'", str(error).splitlines()[0])
        if absent := re.search(r"trying to access (\S+): node `([^`]+)` is not a container", message):
            message = f"it refers to {absent[1]}, but there is no '{absent[2]}' with options in the config"
        return f"{short_key(where) or 'config'}: {message}"
    if isinstance(error, MisconfigurationException):
        return one_line(error)
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error):
        return f"ckpt_path: the checkpoint does not fit the model of this config: {one_line(error)}"
    if isinstance(error, RuntimeError) and "Early stopping conditioned on metric" in str(error):
        return f"trainer.callbacks: {one_line(error)}"
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        operation = str(error).split()[0]
        return (
            f"trainer.deterministic: {operation} of this model has no deterministic implementation on this device; "
            "set it to warn, or take a backbone or method that does without"
        )
    if (fault := fault_of_the_machine(error, arguments)) is not None:
        return fault
    for link in links(error):
        folder = last_file(link)
        if isinstance(link, (ValueError, FileNotFoundError)):
            if folder is not None and PACKAGE in folder.parents:
                return one_line(link)
            if "DataLoader worker process" in str(link):
                return worker_refusal(str(link))
        if folder is None or JSONARGPARSE not in folder.parents:
            return None
    return None


def fault_of_the_machine(error: BaseException, arguments: Sequence[str]) -> str | None:
    """That a disk is full or may not be written to, a package missing, memory out or a worker killed; None for others.

    Whichever error came first may have been followed by others: of a writer, or of one that closed a file.
    """
    for link in links(error):
        if isinstance(link, ValueError) and (file := last_file(link)) is not None and PACKAGE in file.parents:
            return None  # which says more
        if isinstance(link, OSError) and link.errno in CANNOT_WRITE:
            place = f"{link.filename}: " if link.filename else ""
            advice = "make room" if link.errno in NO_ROOM else "check who may write there, or name another place"
            if link.errno in NO_ROOM and arguments[:1] == ["fit"]:
                advice += "; the same command with --ckpt_path auto then continues the run from its last checkpoint"
            return f"{place}{link.strerror}; {advice}"
        if isinstance(link, ModuleNotFoundError):
            return f"{one_line(link)}; install what is missing, or leave out the option that asks for it"
        if isinstance(link, (MemoryError, RuntimeError)) and (asked := OUT_OF_MEMORY.search(str(link))):
            return f"out of memory: {one_line(asked[0])}; ask for less at a time (tasks_per_batch, n_way, batch_size)"
        if isinstance(link, RuntimeError) and (worker := KILLED_WORKER.search(str(link))):
            return (
                f"data.num_workers: {one_line(worker[0])}; where memory ran out, lower data.num_workers or the size of "
                "a batch"
            )
    return None


def parser_refusal(error: BaseException, arguments: Sequence[str]) -> str:
    """What the innermost parser refused."""
    keys: list[str] = []
    parser: Parser | None = None
    class_name, value, text = "", None, ""
    for link in links(error):
        parser = link.parser if isinstance(link, Refusal) else parser
        if str(link) in ("", text):
            continue
        text = str(link)
        if match := CLASS.match(text):
            class_name = match[1].rsplit(".", 1)[-1]
        if match := KEY.match(text):
            keys.append(match[1])
            class_name, value = "", None
        if value is None and (match := VALUE.search(text.splitlines()[-1] if text.strip() else "")):
            value = match[1]
    where = ".".join(filter(None, (short_key(key) for key in keys)))
    for pattern in NOT_AN_OPTION:
        if match := pattern.search(text):
            named = match.groupdict()
            owner = ".".join(filter(None, (where, named.get("group"))))
            if owner and named["name"].split(".")[0] in ("class_path", "init_args"):
                return f"{owner}: options stand directly below it here, without {OF_A_CLASS}"
            name = ".".join(filter(None, (named.get("group"), short_key(named["name"]))))
            return unknown_option(where, name, class_name, parser_of(named.get("command", ""), parser))
    for pattern in REQUIRED:
        if match := pattern.search(text):
            return missing_option(where, [short_key(name) for name in match["names"].split(", ")], class_name)
    if match := re.search(r"argument --([\w.]+): expected one argument", text):
        return f"{option_without_value(match[1], arguments)}: expected a value"
    if not keys:
        return one_line(text)
    if match := re.search(r"Got value: (\{'.*)", text):
        if beside := [key for key in written_keys(match[1]) if key not in ("class_path", "init_args", "dict_kwargs")]:
            return f"{where}.{beside[0]}: a class is told by {OF_A_CLASS}, not by '{beside[0]}'"
    hint = type_hint(parser, keys[-1])
    classes = accepted_classes(hint)
    if classes and (value is None or not value.startswith("Namespace(")):
        reason = class_reason(text)
        hint_of = resembling(reason, classes) or "accepted"
        return f"{where}: {reason}; {hint_of}: {', '.join(classes)}, or the dotted path of your own class"
    if hint is None or value is None:
        return f"{where}: {one_line(text)}" + (f"; expected {type_name(hint)}" if hint is not None else "")
    if value.startswith("Namespace(") and get_origin(hint) is dict:
        return f"{where}: keys are not set one by one here; give all in braces, as in '{{temperature: [1.0, 2.0]}}'"
    return f"{where}={value}: expected {type_name(hint)}"


def unknown_option(where: str, name: str, class_name: str, parser: Parser | None) -> str:
    """That there is no such option, which ones resemble it, and which ones there are."""
    names = option_names(parser)
    group, _, last = name.rpartition(".")
    siblings = [other.removeprefix(f"{group}.") for other in names if group and other.startswith(f"{group}.")]
    accepted = siblings or list(dict.fromkeys(other.split(".")[0] for other in names))
    last = last if siblings or not group or group.split(".")[0] in accepted else group.split(".")[0]
    close = difflib.get_close_matches(last, accepted, n=3)
    owner = group if siblings else class_name or where or "the command"
    full = ".".join(filter(None, (where, group if siblings else "", last)))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    if not accepted:
        return f"{full}: a class is told by {OF_A_CLASS}, not by '{last}'"
    return f"{full}: {owner} has no option '{last}'; {hint}Accepted: {', '.join(accepted)}"


def written_keys(text: str) -> list[str]:
    """The keys of a mapping of plain values as Python writes it; none where it was cut, holds others or is too deep."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(key) for key in value] if isinstance(value, dict) else []


def missing_option(where: str, names: list[str], class_name: str) -> str:
    """That options are required."""
    if not where and set(names) <= {"model", "data"}:
        return f"{' and '.join(sorted(names))} required; name a config, as in --config configs/quickstart.yaml"
    full = ", ".join(f"{where}.{name}" if where else name for name in names)
    return f"{full}: required{f' by {class_name}' if class_name else ''} and not given"


def option_without_value(name: str, arguments: Sequence[str]) -> str:
    """The option of the command line, --<name> or below it, that no value follows."""
    for place, argument in enumerate(arguments):
        alone = place + 1 == len(arguments) or arguments[place + 1].startswith("--")
        if alone and "=" not in argument and (argument == f"--{name}" or argument.startswith(f"--{name}.")):
            return argument[2:]
    return name


def class_reason(text: str) -> str:
    """Why a class was refused, without the wrapping."""
    if match := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"no class '{match[1]}' is known here"
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    return one_line(lines[0] if lines else text).split(" Subtypes:")[0]


def resembling(reason: str, classes: Sequence[str]) -> str:
    """Which of the classes look like the one that was refused, as a question before the list; nothing if none does."""
    asked = re.search(r"no (?:class|attribute) '([^']+)'|value: (\S+)", reason)
    by_lower = {name.lower(): name for name in classes}
    wanted = (asked[1] or asked[2]).rsplit(".", 1)[-1].lower() if asked else ""
    close = [by_lower[name] for name in difflib.get_close_matches(wanted, by_lower, n=3)]
    return f"did you mean {' or '.join(close)}? Accepted" if close else ""


def worker_refusal(text: str) -> str | None:
    """The message of an error that torch brings back from a data loader's worker process as a traceback in text."""
    files = re.findall(r'File "([^"]+)", line', text)
    _, found, message = text.rpartition("\nValueError: ")
    if not found:
        _, found, message = text.rpartition("\nFileNotFoundError: ")
    return one_line(message) if found and files and PACKAGE in Path(files[-1]).resolve().parents else None


def links(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = cause(error)


def cause(error: BaseException) -> BaseException | None:
    """What caused an exception; of the alternatives of a union the one that came farthest.

    jsonargparse gives as the cause of "Does not validate against any of the Union subtypes" the error of the first
    alternative, which in its earlier versions is null's "Expected a NoneType". The others are in the frame that raised.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    alternatives = trace.tb_frame.f_locals.get("exceptions") if trace is not None and "Union" in str(error) else None
    if isinstance(alternatives, list) and alternatives and all(isinstance(x, Exception) for x in alternatives):
        return max(alternatives, key=lambda one: ("NoneType" not in str(one)[:40], sum(1 for _ in links(one))))
    return error.__cause__ or error.__context__


def last_file(error: BaseException) -> Path | None:
    """The file that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).resolve() if frames else None


def one_line(message: Any) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())
