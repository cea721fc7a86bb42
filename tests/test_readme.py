"""What the README says is what there is: its commands parse, its example works, its figures are complete."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

from fewshot.cli import TOOLS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def commands():
    """Every `python -m fewshot` command of the README, continued lines joined, comments left out."""
    for language, text in BLOCKS:
        if language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    if words[1:3] == ["-m", "fewshot"]:
                        yield words[3:]


COMMANDS = list(commands())


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@@|TODO|\?\?", README)


def test_the_two_commands_of_the_first_screen():
    first_screen = "\n".join(README.splitlines()[:50])
    for name in ("run", "test"):
        assert re.search(rf"<!-- {name} command -->\n```bash\n.*\n```", first_screen)
    assert ["fit", "--config", "configs/quickstart.yaml"] in COMMANDS


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "fit"], ids=" ".join)
def test_every_fit_command_is_understood(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main([*command, "--print_config"])
    assert stop.value.code in (0, None)
    assert "class_path: fewshot." in capsys.readouterr().out


def test_options_of_the_other_commands_are_understood(monkeypatch, capsys):
    """They refer to a run; here its config is the shipped one."""
    monkeypatch.chdir(ROOT)
    others = [c for c in COMMANDS if c[0] not in ("fit", "export", *TOOLS)]  # the latter is run by test_export.py
    assert others
    for command in others:
        place = command.index("--config") + 1
        if not command[place].startswith("configs/"):
            command[place] = f"configs/{command[place].split('/')[1]}.yaml"
        with pytest.raises(SystemExit) as stop:
            main([*command, "--print_config"])
        assert stop.value.code in (0, None), capsys.readouterr().err


def test_the_example_of_a_method_works(tmp_path, monkeypatch):
    source = next(text for language, text in BLOCKS if language == "python" and "Method" in text)
    (tmp_path / "median_of_the_readme.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    method = importlib.import_module("median_of_the_readme").NearestMedian()
    support, labels = torch.randn(2, 6, 4), torch.tensor([[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    logits = method.classify(support, labels, torch.randn(2, 5, 4), 2)
    assert logits.shape == (2, 5, 2) and logits.isfinite().all()


def test_files_and_links_that_it_names_exist():
    for name in re.findall(r"`((?:fewshot|configs|tests)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name
