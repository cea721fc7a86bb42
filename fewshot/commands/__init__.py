"""The command line, python -m fewshot {fit,validate,test,predict} and the tools beside them: its help and its errors.

A command's file is imported when it is asked for: Lightning and timm take seconds.
"""

from __future__ import annotations

import importlib
import os
import sys

from fewshot.commands.waiting import bound_waits

COMMANDS = {
    "fit": "train, keep the best checkpoint by validation accuracy, and test it",
    "validate": "measure a checkpoint on the validation episodes",
    "test": "measure a checkpoint on the test episodes; writes results.json",
    "predict": "write predictions.csv for the test episodes",
}
"""What fewshot.commands.fit does, by LightningCLI."""
TOOLS = {
    "classify": "classify a folder of your own pictures after a few labelled ones; writes a table and a report",
    "suggest": "say which of your own pictures to label, first and next; writes a list and a page to label them in",
    "compare": "test several methods and checkpoints on the same episodes; writes a table and plots",
    "show": "draw episodes, class counts, accuracy per step and a map of features as pictures to look at",
    "export": "write a trained model for other programs: saved model, ONNX, torch.export",
    "convert": "turn a checkpoint of the original SIB program into one of this package",
    "results": "print a table of all runs below a folder, as text, Markdown, CSV or JSON",
    "cache": "show and clear decoded pictures and stored features",
}
"""The others: each is a file of this folder, whose `run(arguments)` does it."""
LIGHT = ("results", "cache")
"""Tools that need neither Lightning nor torch."""

HELP = f"""usage: python -m fewshot {{{",".join(COMMANDS)}}} --config FILE [--config FILE ...] [--KEY VALUE ...]
       python -m fewshot {{{",".join(TOOLS)}}} [...]

Transductive few-shot learning: meta-train, test and apply a method on episodes.

commands:
{chr(10).join(f"  {name:<10}{description}" for name, description in COMMANDS.items())}

tools, with options of their own (python -m fewshot TOOL --help):
{chr(10).join(f"  {name:<10}{description}" for name, description in TOOLS.items())}

examples:
  python -m fewshot fit --config configs/quickstart.yaml
  python -m fewshot fit --config configs/quickstart.yaml --model.method.n_steps 5 --data.n_way 9
  python -m fewshot test --config runs/quickstart/version_0/config.yaml --ckpt_path runs/quickstart/version_0
  python -m fewshot compare --config configs/compare/cifar_fs_conv4.yaml
  python -m fewshot results runs/

more:
  python -m fewshot fit --help                      options of a command
  python -m fewshot fit --model.help FewShotModule  options of a class (also --data.help EpisodicDataModule)
  python -m fewshot fit --config FILE --print_config  the whole configuration
"""


def main(args: list[str] | None = None) -> None:
    """Run the command line; what a person can mend ends with one line on the error stream and exit code 2.

    Args:
        args: arguments; None takes those of the process.
    """
    bound_waits(os.environ)
    arguments = sys.argv[1:] if args is None else list(args)
    if any(argument in ("-h", "--help") for argument in arguments[:1]):
        print(HELP, end="")
        return
    if not arguments or arguments[0] not in (*COMMANDS, *TOOLS):
        given = f"'{arguments[0]}' is no command" if arguments else "no command given"
        fail(f"{given}; choose one of {', '.join((*COMMANDS, *TOOLS))} (python -m fewshot --help)")
    if arguments[0] in LIGHT:
        try:
            importlib.import_module(f"fewshot.commands.{arguments[0]}").run(arguments[1:])
            return
        except (ValueError, FileNotFoundError) as error:
            fail(" ".join(str(error).split()), error)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as python -m does it: classes of a person's own are found beside the configs
    from fewshot.commands.process import ends_by_sigterm, keep_freed_memory
    from fewshot.commands.refusals import refusal_of

    keep_freed_memory()
    try:
        with ends_by_sigterm():
            if arguments[0] in TOOLS:
                importlib.import_module(f"fewshot.commands.{arguments[0]}").run(arguments[1:])
            else:
                importlib.import_module("fewshot.commands.fit").run(arguments)
    except Exception as error:
        message = refusal_of(error, arguments)
        if message is None:
            raise
        fail(message, error)


def fail(message: str, error: Exception | None = None) -> None:
    """Exit with code 2 and one line."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2) from error
