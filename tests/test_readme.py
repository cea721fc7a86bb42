"""What the README says is what there is: its commands parse, its example works, its figures are complete."""

import importlib
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fewshot import FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.commands import TOOLS, main
from fewshot.data.transforms import Preprocessing
from fewshot.methods import SIB, MLPGradient
from fewshot.training.saved_model import save_trained

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
    others = [c for c in COMMANDS if c[0] not in ("fit", *TOOLS) and "--config" in c]
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


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """What the section on one's own pictures supposes: a trained model, some labelled pictures, others without."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = FewShotModule(SIB(gradient=MLPGradient(5)), BackboneConfig("conv4_32", image_size=16)).eval()
    save_trained(module, Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3), "runs/quickstart")
    for number in range(5):
        folder = Path("photos/labelled") / f"class {number}"
        folder.mkdir(parents=True)
        Path("photos/unsorted").mkdir(exist_ok=True)
        for picture in range(5):
            pixels = np.clip(np.random.default_rng(picture).normal(50 * number, 20, (16, 20, 3)), 0, 255)
            file = folder / f"{picture}.png" if picture < 2 else Path("photos/unsorted") / f"{number} {picture}.jpg"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path


def test_the_commands_for_ones_own_pictures_run(photos):
    own, by_name = (c for c in COMMANDS if c[0] == "classify")
    main(own)
    with Path("photos/classified/predictions.csv").open(encoding="utf-8") as table:
        assert sum(1 for _ in table) == 1 + 15
    assert Path("photos/classified/report.html").stat().st_size > 10_000
    place = by_name.index("--backbone") + 1
    torch.save(BackboneConfig("resnet18", image_size=32).create().state_dict(), "published.pth")
    assert timm.is_model_pretrained(by_name[place])
    main([*by_name[:place], "resnet18", "--weights", "published.pth", "--image_size", "32", *by_name[place + 1 :]])
    assert Path("photos/by_dinov2/report.html").is_file()


def test_the_python_for_ones_own_pictures_runs(photos, capsys):
    source = next(text for language, text in BLOCKS if language == "python" and "FewShotClassifier" in text)
    Path("from_the_readme.py").write_text(source)
    runpy.run_path("from_the_readme.py")
    assert "class 0" in capsys.readouterr().out
    assert Path("photos/classifier/classifier.json").is_file()


def test_files_and_links_that_it_names_exist():
    for name in re.findall(r"`((?:fewshot|configs|tests)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name
