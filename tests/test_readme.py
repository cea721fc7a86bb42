"""What the documents say is what there is: commands parse, Python runs, names and links exist, tables are complete."""

from __future__ import annotations

import csv
import glob
import importlib
import inspect
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

import fewshot.data.datasets
import fewshot.methods
from fewshot.backbones import BackboneConfig
from fewshot.commands import COMMANDS, TOOLS, main
from fewshot.methods import Method
from tests.benchmarks import OF_ACCURACY

ROOT = Path(__file__).resolve().parent.parent
READMES = [
    ROOT / "README.md",
    *sorted(file for room in ("fewshot", "configs", "sweeps") for file in (ROOT / room).rglob("README.md")),
    *(file for file in (ROOT / "tests" / "README.md", ROOT / "tests" / "benchmarks" / "README.md") if file.is_file()),
]
DOCUMENTS = [*READMES, ROOT / "CHANGELOG.md", *sorted((ROOT / ".github").glob("*.md"))]
ROOMS = ("methods", "classification", "runs", "interop", "data", "backbones", "training")
LONGEST = 130
"""Lines of the top README at most: one page."""
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block of a document."""

    document: Path
    language: str
    text: str


class Command(NamedTuple):
    """What a document tells to type behind `python -m`: the module, and its arguments."""

    document: Path
    module: str
    arguments: list[str]


def blocks(language: str) -> Iterator[Block]:
    """Every fenced block of a language in every README."""
    for document in READMES:
        for found, text in re.findall(r"^```(\w*)\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE):
            if found == language:
                yield Block(document, found, text)


def commands() -> Iterator[Command]:
    """Every command, continued lines joined; comments and what a shell fills in are left out."""
    for block in blocks("bash"):
        for line in re.sub(r"\$\{.*?\}", "", block.text.replace("\\\n", " ")).splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if "-m" in words:
                    _, module, *arguments = words[words.index("-m") :]
                    yield Command(block.document, module, arguments)


OURS = [command for command in commands() if command.module == "fewshot"]


def named(command: Command) -> str:
    return f"{command.document.parent.name}: {' '.join(command.arguments)}"


def of(*names: str) -> Any:
    """A parametrisation over the commands of these names, less those of which another gives all words and more."""
    found = {frozenset(c.arguments): c for c in OURS if c.arguments[0] in names}
    kept = [command for words, command in found.items() if not any(words < others for others in found)]
    return pytest.mark.parametrize("command", kept, ids=named)


def experiments() -> dict[str, Path]:
    """Every shipped config by the name of its run folder."""
    found = {}
    for file in (ROOT / "configs").rglob("*.yaml"):
        found[yaml.safe_load(text_of(file))["experiment"]] = file
    return found


def shipped(arguments: list[str]) -> list[str]:
    """The arguments with the shipped config in place of that of a run, which is not there."""
    return [
        str(experiments()[argument.split("/")[1]]) if re.fullmatch(r"runs/.*/config\.yaml", argument) else argument
        for argument in arguments
    ]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the examples that say what file they are in, found by Python, seen from the repository."""
    for block in blocks("python"):
        if name := re.match(r"# ([\w/]+\.py)\n", block.text):
            (tmp_path / Path(name[1]).name).write_text(block.text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(ROOT)
    before = set(sys.modules)
    yield tmp_path
    for name in {file.stem for file in tmp_path.glob("*.py")} - before:
        sys.modules.pop(name, None)


# The front page.


def test_the_front_page_is_one_page() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= LONGEST


def test_the_two_commands_of_the_first_screen() -> None:
    first_screen = "\n".join(text_of(ROOT / "README.md").splitlines()[:50])
    for name in ("run", "test"):
        assert re.search(rf"<!-- {name} command -->\n```bash\n.*\n```", first_screen)
    assert ["fit", "--config", "configs/quickstart.yaml"] in [command.arguments for command in OURS]


def test_one_command_for_each_thing() -> None:
    front = {command.arguments[0] for command in OURS if command.document == ROOT / "README.md"}
    assert front >= {"fit", "test", "compare", "classify", "export"}
    everywhere = {command.arguments[0] for command in OURS}
    assert everywhere >= {*COMMANDS, *TOOLS} - {"validate"}


# Commands.


@pytest.mark.slow
@of("fit", "test", "predict", "show")
def test_what_is_given_a_config_is_understood(
    command: Command, examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument for argument in command.arguments if argument != "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main([*shipped(arguments), "--print_config"])
    printed = capsys.readouterr()
    assert stop.value.code in (0, None), printed.err
    assert "class_path: fewshot." in printed.out


@pytest.mark.slow
@of("compare", "classify", "suggest", "export", "convert", "results")
def test_options_of_a_tool_are_understood(command: Command, examples: Path) -> None:
    tool, *arguments = command.arguments
    special = {"joining": True} if "--joined" in arguments else {}
    importlib.import_module(f"fewshot.commands.{tool}").parser(**special).parse_args(shipped(arguments))


@of("cache")
def test_the_cache_is_shown_and_cleared(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    main(command.arguments)
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in commands() if c.module.startswith("tests.")], ids=named)
def test_a_program_of_the_tests_is_there_and_has_these_options(command: Command) -> None:
    names = command.arguments[:1] if command.arguments[:1] and command.arguments[0] in OF_ACCURACY else []
    below = "" if "." in command.module[6:] else f".{names[0]}" if names else ".__main__"
    module = importlib.import_module(command.module + below)
    source = inspect.getsource(module)
    for argument in command.arguments:
        assert not argument.startswith("--") or f'"{argument}"' in source, f"{command.module} has no {argument}"


def test_extras_that_are_installed_are_declared() -> None:
    declared = text_of(ROOT / "pyproject.toml").split("[project.optional-dependencies]")[1].split("\n[")[0]
    for document in DOCUMENTS:
        for extras in re.findall(r"pip install -e '\.\[([\w,]+)\]'", text_of(document)):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), f"{document.name}: no extra {extra}"


# Examples, run for real.


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the quickstart, shortened, and photographs as the documents suppose them."""
    place = tmp_path_factory.mktemp("documents")
    few = ["--data.train_episodes=8", "--data.val_episodes=4", "--data.test_episodes=4", "--trainer.max_epochs=1"]
    few += ["--data.n_query=3", "--data.dataset.pictures_per_class=4", "--trainer.accelerator=cpu"]
    few += ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main(["fit", "--config", str(ROOT / "configs" / "quickstart.yaml"), *few])
    for number in range(5):
        folder = place / "photos" / "labelled" / f"class {number}"
        folder.mkdir(parents=True)
        (place / "photos" / "unsorted").mkdir(exist_ok=True)
        for picture in range(5):
            pixels = np.clip(np.random.default_rng(picture).normal(50 * number, 20, (16, 20, 3)), 0, 255)
            file = (
                folder / f"{picture}.png" if picture < 2 else folder.parents[1] / "unsorted" / f"{number}-{picture}.jpg"
            )
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return place


IN_A_FILE = re.compile(r"# [\w/]+\.py\n")
SCRIPTS = [b for b in blocks("python") if not IN_A_FILE.match(b.text) and "onnxruntime" not in b.text]
"""Examples to be typed as they are; that of ONNX is run in tests/interop/test_export.py, where a model is exported."""


def in_turn(block: Block) -> Any:
    """Slow where it trains by itself."""
    marks = [pytest.mark.slow] if "Trainer(" in block.text else []
    return pytest.param(block, marks=marks, id=f"{block.document.parent.name}: {block.text[:60]}")


@pytest.mark.filterwarnings(
    "ignore::UserWarning:pytorch_lightning", "ignore:.*tensorboardX:UserWarning"
)  # on its defaults
@pytest.mark.parametrize(
    "block", [in_turn(block) for block in SCRIPTS], ids=lambda block: f"{block.document.parent.name}: {block.text[:60]}"
)
def test_an_example_runs(block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    text = re.sub(r'(max_epochs=|_episodes": )\d+', r"\g<1>4", block.text)
    text = text.replace("Glyphs()", "Glyphs(pictures_per_class=16)")
    (workplace / "example.py").write_text(text, encoding="utf-8")
    runpy.run_path("example.py")
    if "classifier.save" in block.text:
        assert (workplace / "photos" / "classifier" / "classifier.json").is_file()


def of_small_network(arguments: list[str]) -> list[str]:
    """The arguments with weights of no use, written here, in the place of those that timm fetches."""
    place = arguments.index("--backbone") + 1
    assert timm.is_model_pretrained(arguments[place])
    torch.save(BackboneConfig("test_efficientnet", image_size=32).create().state_dict(), "published.pth")
    return [
        *arguments[:place],
        "test_efficientnet",
        "--weights",
        "published.pth",
        "--image_size",
        "32",
        *arguments[place + 1 :],
    ]


def test_the_commands_for_ones_own_pictures_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    supported = [c for c in OURS if "--support" in c.arguments and c.document != ROOT / "README.md"]
    trained, by_name = (c.arguments for c in supported if "--labels" not in c.arguments)
    main(trained)
    with Path("photos/classified/predictions.csv").open(encoding="utf-8") as table:
        assert sum(1 for _ in csv.reader(table)) == 1 + 15
    assert Path("photos/classified/report.html").stat().st_size > 10_000
    main(of_small_network(by_name))
    assert Path("photos/by_dinov2/report.html").is_file()


def loop() -> list[list[str]]:
    """The commands of a person in the loop, those for photographs first."""
    document = ROOT / "fewshot" / "classification" / "README.md"
    found = [c.arguments for c in OURS if c.document == document]
    found = [arguments for arguments in found if {"suggest", "--labels", "--continue"} & {*arguments}]
    return [arguments for arguments in found if "--features" not in arguments]


def test_the_commands_of_the_loop_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    Path("labels.csv").write_text("path,label,none_of_these\n1-2.jpg,class 1,\n2-2.jpg,,true\n", encoding="utf-8")
    Path("photos/new").mkdir()
    Image.new("RGB", (16, 20), (200, 200, 200)).save("photos/new/later.png")
    suggest, corrected, more = loop()[3:]
    main(suggest)
    assert len(Path("photos/to_label/suggestions.csv").read_text(encoding="utf-8").splitlines()) == 1 + 10
    main(corrected)
    assert len(list(Path("photos/by_class").rglob("*.jpg"))) == 15
    main(more)
    with Path("photos/more/predictions.csv").open(encoding="utf-8") as table:
        assert sum(1 for _ in csv.reader(table)) == 1 + 13 + 1 + 1


@pytest.mark.slow
def test_the_commands_for_photographs_without_a_label_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    first, then, again = loop()[:3]
    for arguments in (first, then):
        main(of_small_network(arguments))
        Path("labels.csv").write_text("path,label\n1-2.jpg,class 1\n2-2.jpg,class 2\n", encoding="utf-8")
    Path("labels.csv").write_text("path,label\n1-2.jpg,class 1\n2-2.jpg,class 3\n", encoding="utf-8")
    main(again)
    assert len(list(Path("photos/into_folders/class 3").glob("2-2.jpg"))) == 1


def test_the_commands_for_features_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digits, by_words = (c.arguments for c in OURS if c.arguments[0] == "classify" and "--features" in c.arguments)
    rows = np.random.default_rng(0).normal(size=(6, 4))
    np.savez("digits.npz", features=rows, labels=[0, 1, -1, -1, -1, -1])
    np.savez("pictures.npz", features=rows)
    Path("words.csv").write_text("class,a,b,c,d\ncat,1,2,3,4\ndog,4,3,2,1\n", encoding="utf-8")
    for command, n_query in ((digits, 4), (by_words, 6)):
        main(command)
        with Path(command[-1], "predictions.csv").open(encoding="utf-8") as table:
            assert sum(1 for _ in csv.reader(table)) == 1 + n_query


def test_the_example_of_a_method_works(examples: Path) -> None:
    method = importlib.import_module("my_method").NearestMedian()
    support, labels = torch.randn(2, 6, 4), torch.tensor([[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    logits = method.classify(support, labels, torch.randn(2, 5, 4), 2)
    assert logits.shape == (2, 5, 2) and logits.isfinite().all()


def test_the_example_of_a_data_set_works(examples: Path, tmp_path: Path) -> None:
    module = importlib.import_module("my_data")
    held_out = {name for names in module.HELD_OUT.values() for name in names}
    for species in (*held_out, "alder", "beech"):
        folder = tmp_path / "trees" / species
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("L", (30, 40), 40 * number).save(folder / f"{number}.png")
    leaves = module.Leaves(str(tmp_path / "trees"))
    names = {split: set(leaves.images(split).class_names) for split in ("train", "val", "test")}
    assert names == {"train": {"alder", "beech"}, **{split: set(each) for split, each in module.HELD_OUT.items()}}


def test_the_example_of_a_backbone_works(examples: Path) -> None:
    importlib.import_module("two_layers")
    backbone = BackboneConfig("two_layers", in_chans=1, image_size=28).create()
    assert backbone(torch.zeros(2, 1, 28, 28)).shape == (2, backbone.num_features)


# Names and links.


@each_document
def test_nothing_is_left_to_fill_in(document: Path) -> None:
    assert not re.search(r"@@|TODO|\?\?", text_of(document))


@each_document
def test_files_that_it_names_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return  # it names what is gone
    for name in re.findall(r"`((?:fewshot|configs|sweeps|tests|\.ci|\.github)/[\w./*]*)`", text_of(document)):
        assert glob.glob(str(ROOT / name)), name


@each_document
def test_options_that_it_names_exist(document: Path) -> None:
    """Those of the commands themselves; options of a config, which have dots, are parsed with the commands above."""
    if document.name == "CHANGELOG.md":
        return
    source = "".join(text_of(file) for file in (ROOT / "fewshot" / "commands").glob("*.py"))
    known = {*re.findall(r'"(?:--)?(\w+)"', source), "config", "print_config", "ckpt_path", "seed_everything"}
    prose = re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)
    for code in re.findall(r"`([^`]*)`", prose):
        if not code.startswith(("python -m pytest", "python -m tests", ".ci/run", "--classes")):
            assert set(re.findall(r"--(\w+)(?![\w.])", code)) <= known, code


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()).replace(" ", "-")


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    prose = re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text_of(target), re.MULTILINE)
            assert anchor in map(slug, headings), link


def test_a_figure_stands_in_one_document_only() -> None:
    homes: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        for figure in re.findall(r"\d+\.\d\d ± \d\.\d\d", text_of(document)):
            homes.setdefault(figure, set()).add(str(document.relative_to(ROOT)))
    several = {figure: sorted(found) for figure, found in homes.items() if len(found) > 1}
    assert not several


# Tables that are to be complete.


def test_every_room_has_a_document_and_is_on_the_front_page() -> None:
    for room in ROOMS:
        assert (ROOT / "fewshot" / room / "README.md").is_file()
    front, inside = text_of(ROOT / "README.md"), text_of(ROOT / "fewshot" / "README.md")
    entries = [path for path in (ROOT / "fewshot").iterdir() if not path.name.startswith(("__", "."))]
    for entry in entries:
        if entry.name not in ("py.typed", "README.md"):
            assert f"(fewshot/{entry.name}" in front, entry.name
            assert f"({entry.name}" in inside, entry.name


def test_every_config_and_sweep_has_its_row() -> None:
    for folder in ("configs", "sweeps"):
        listed = text_of(ROOT / folder / "README.md")
        for file in (ROOT / folder).rglob("*.yaml"):
            assert f"]({file.relative_to(ROOT / folder)})" in listed, file.name


def test_every_method_has_its_row_and_is_what_it_says() -> None:
    listed = text_of(ROOT / "fewshot" / "methods" / "README.md")
    rows = dict(re.findall(r"^\| \[[^]]+\]\((\w+)\.py\)[^|]*\| (\w+)", listed, re.MULTILINE))
    for name in fewshot.methods.__all__:
        kind = getattr(fewshot.methods, name)
        if inspect.isclass(kind) and issubclass(kind, Method) and kind is not Method:
            file = Path(inspect.getfile(kind)).stem
            assert rows.get(file) == ("transductive" if kind.transductive else "inductive"), name


def test_every_data_set_has_its_row() -> None:
    listed = text_of(ROOT / "fewshot" / "data" / "README.md")
    for name in fewshot.data.datasets.__all__:
        assert name == "FewShotDataset" or f"| `{name}` |" in listed, name
