"""The parser of every command: options in full, errors raised rather than printed, former names understood."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
import yaml
from pytorch_lightning.cli import LightningArgumentParser

from fewshot.files import expanded
from fewshot.methods.class_path import with_present_paths

WITHOUT_EFFECT = re.compile(r"^\s*fresh_share: 0(\.0)?\s*$", re.MULTILINE)
"""Lines that config.yaml of earlier runs holds, of an option that is gone, with the value that did nothing."""
# Lightning writes configs by it, and defaults of its own callbacks are devices
yaml.SafeDumper.add_representer(torch.device, lambda dumper, device: dumper.represent_str(str(device)))


class Refusal(argparse.ArgumentError):
    """A parser's error, with the parser."""

    def __init__(self, message: str, parser: Parser) -> None:
        super().__init__(None, message)
        self.parser = parser


class Parser(LightningArgumentParser):
    """A parser that takes no abbreviated options and raises its errors, rather than printing pages of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Parse; arguments may name classes by former paths, and `=None` is null.

        jsonargparse 4.53 hands what it has read of an option below an option on to another parser as Python writes it,
        so that null would become the text "None".
        """
        if args is not None:
            args = [re.sub("=None$", "=null", with_present_paths(argument)) for argument in args]
        return super().parse_args(args, **options)

    def _load_config_parser_mode(self, content: str, *rest: Any, **options: Any) -> Any:
        """Load a config's text, which may name classes by former paths and hold options that did nothing."""
        text = WITHOUT_EFFECT.sub("", with_present_paths(content))
        return super()._load_config_parser_mode(text, *rest, **options)

    def dump(self, *config: Any, **options: Any) -> str:
        """A config as text; what was parsed a moment ago is not validated anew, which takes a tenth of a second."""
        return super().dump(*config, **{"skip_validation": True, **options})

    def save(self, *config: Any, **options: Any) -> None:
        """Write a config; see `dump`."""
        super().save(*config, **{"skip_validation": True, **options})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a Refusal."""
        raise Refusal(message, self) from ex


def add_switch(parser: LightningArgumentParser, name: str, *, help: str) -> None:
    """Add an option that is off, and on by its name alone; `true` or `false` may follow."""
    parser.add_argument(name, type=bool, nargs="?", const=True, default=False, help=help)


def add_packages(parser: LightningArgumentParser) -> None:
    """Add the option by which a person allows a file to name classes of packages that are not ours."""
    parser.add_argument(
        "--packages", type=list[str], default=[], help="Packages of your own whose classes the file may name."
    )


def check_configs(arguments: Sequence[str]) -> None:
    """ValueError or FileNotFoundError where a file given by --config cannot be read as a YAML mapping."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name not in ("--config", "-c"):
            continue
        if not equals:
            value = arguments[place + 1] if place + 1 < len(arguments) else ""
        if not value or value.lstrip().startswith("{"):
            continue
        path = expanded(value)
        if not path.is_file():
            raise FileNotFoundError(f"config: no file {value}")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place_in_file = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            problem = " ".join(str(getattr(error, "problem", None) or error).split())
            raise ValueError(f"config: {value} is not valid YAML: {problem}{place_in_file}") from error
        if not isinstance(content, dict):
            raise ValueError(f"config: {value} holds {type(content).__name__}, not keys with values")
        if (key := next((key for key in content if not isinstance(key, str)), None)) is not None:
            raise ValueError(f"config: {value} has the key {key!r}, which is no name of an option")
        if "methods" in content and arguments[0] in ("fit", "validate", "test", "predict"):
            raise ValueError(f"config: {value} is one of compare, with methods; give it to python -m fewshot compare")
