"""What lies in the repository: names, sizes, nothing that loads code from a data file, dependencies as declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"fewshot", "configs", "sweeps", "tests", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"}
PYTHON = sorted([*(ROOT / "fewshot").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])

# Declared in pyproject.toml, imported by nothing of ours, and needed all the same.
NOT_IMPORTED = {
    "omegaconf": "jsonargparse's parser mode",
    "rich": "Lightning's progress bar and model summary",
}
IMPORTED_AS = {
    "pillow": "PIL",
    "pytorch-lightning": "pytorch_lightning",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
# Not everybody needs these: the extra that has each, and the only file that imports it, when it is asked to.
OPTIONAL = {
    "onnx": ("export", "interop/graphs.py"),
    "onnxruntime": ("export", "interop/graphs.py"),
    "sklearn": ("test", "classification/conventions.py"),
}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files that git tracks, relative to the repository; skips outside a checkout."""
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    files = [Path(name) for name in names.split("\0") if name]
    return [file for file in files if (ROOT / file).is_file()]


def test_top_level_holds_what_the_architecture_names(tracked: list[Path]) -> None:
    top = {file.parts[0] for file in tracked}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_is_a_dumping_ground(tracked: list[Path]) -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "misc"}
    found = [str(file) for file in tracked if nameless & {*file.parts[:-1], file.stem}]
    assert not found, f"name these after their subject: {found}"


def test_no_file_is_larger_than_one_megabyte(tracked: list[Path]) -> None:
    sizes = {str(file): (ROOT / file).stat().st_size for file in tracked}
    assert not {name: size for name, size in sizes.items() if size > 2**20}


def calls(file: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a file and the dotted name of what is called, as written there."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


@pytest.mark.parametrize("file", PYTHON, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_data_file_can_run_code(file: Path) -> None:
    """A test may write a file that would run code, to show that it is refused; nothing may load one."""
    for call, function in calls(file):
        where = f"{file.relative_to(ROOT)}:{call.lineno}: {function}"
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        constants = {name: value.value for name, value in keywords.items() if isinstance(value, ast.Constant)}
        assert constants.get("weights_only", True) is True, f"{where}(weights_only={constants['weights_only']})"
        if not (function == "np.save" and file.is_relative_to(ROOT / "tests")):
            assert constants.get("allow_pickle", False) is False, f"{where}(allow_pickle={constants['allow_pickle']})"
        if function == "torch.load":
            assert constants.get("weights_only") is True, f"{where} without weights_only=True"
        assert function not in ("eval", "exec", "yaml.load", "yaml.unsafe_load"), where


@pytest.mark.parametrize("file", sorted((ROOT / "fewshot").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_package_does_not_pickle(file: Path) -> None:
    assert not top_level_imports([file]) & PICKLES


def test_configs_load_weights_only() -> None:
    for file in [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "sweeps").rglob("*.yaml")]:
        assert not re.search(
            r"weights_only:\s*(false|no|off|null|~)", file.read_text(encoding="utf-8"), re.IGNORECASE
        ), file


def top_level_imports(files: list[Path]) -> set[str]:
    """The outermost names of all modules that these files import, wherever in the file; not relative ones."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def declared(requirements: list[str]) -> dict[str, str]:
    """Requirement names, lower case, and the module that each is imported as."""
    names = [re.split(r"[\s\[<>=!~;]", requirement)[0].lower() for requirement in requirements]
    return {name: IMPORTED_AS.get(name, name) for name in names}


def test_imports_and_declared_dependencies_are_the_same_set() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = declared(project["dependencies"])
    third_party = top_level_imports(sorted((ROOT / "fewshot").rglob("*.py"))) - sys.stdlib_module_names - {"fewshot"}
    undeclared = third_party - set(runtime.values()) - set(OPTIONAL)
    assert not undeclared, f"imported by fewshot/ but no dependency in pyproject.toml: {sorted(undeclared)}"
    unused = {name for name, module in runtime.items() if module not in third_party} - set(NOT_IMPORTED)
    assert not unused, f"dependencies in pyproject.toml that nothing in fewshot/ imports: {sorted(unused)}"

    optional = project["optional-dependencies"]
    for module, (group, where) in OPTIONAL.items():
        assert module in declared(optional[group]).values(), f"{module} is in no extra {group}"
        importing = [file for file in (ROOT / "fewshot").rglob("*.py") if module in top_level_imports([file])]
        assert importing == [ROOT / "fewshot" / where], f"{module} is imported by {importing}"
    groups = [group for group in optional if group != "dev"]  # of bench, benchmarks do without
    extra = declared([requirement for group in groups for requirement in optional[group]])
    here = {"tests", "tomli", "tomllib", "fewshot"} | {file.stem for file in PYTHON if ROOT / "tests" in file.parents}
    undeclared = top_level_imports([file for file in PYTHON if ROOT / "tests" in file.parents])
    undeclared -= sys.stdlib_module_names | set(runtime.values()) | set(extra.values()) | here
    assert not undeclared, f"imported by tests/ but not in the extras test and bench: {sorted(undeclared)}"


def test_changelog_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings, "CHANGELOG.md has no '## [version]' heading"
    assert headings[0] == "Unreleased" or headings[0] == version, f"{headings[0]} is newer than pyproject's {version}"
