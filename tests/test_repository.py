"""What lies in the repository: names, sizes, nothing that loads code from a data file, dependencies as declared."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"fewshot", "configs", "sweeps", "tests", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"}
PACKAGE = sorted((ROOT / "fewshot").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PYTHON = [*PACKAGE, *TESTS]

# Declared in pyproject.toml, imported by nothing of ours, and needed all the same.
NOT_IMPORTED = {
    "omegaconf": "jsonargparse's parser mode",
    "rich": "Lightning's progress bar and model summary",
}
IMPORTED_AS = {
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pytest-xdist": "xdist",
    "pytorch-lightning": "pytorch_lightning",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
# Not everybody needs these: the extra that has each, and the only file that imports it, when it is asked to.
OPTIONAL = {
    "onnx": ("export", "interop/graphs.py"),
    "onnxruntime": ("export", "interop/graphs.py"),
    "pillow_heif": ("heif", "data/pictures.py"),
    "pyarrow": ("parquet", "classification/feature_parquet.py"),
    "sklearn": ("test", "classification/conventions.py"),
    "transformers": ("clip", "classification/clip.py"),
}
UNSAFE = re.compile(r"weights_only|allow_pickle|\btorch\b.*\bload\b|\byaml\b.*\bload\b")
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


def nodes(file: Path) -> Iterator[ast.AST]:
    """Those of a file's syntax tree."""
    return ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def unsafe(call: ast.Call, *, writes: bool) -> str | None:
    """What in a call lets a data file run code; with `writes`, np.save may make such a file."""
    function = ast.unparse(call.func)
    constants = {one.arg: one.value.value for one in call.keywords if isinstance(one.value, ast.Constant)}
    if constants.get("weights_only", True) is not True:
        return f"{function}(weights_only={constants['weights_only']})"
    if constants.get("allow_pickle", False) is not False and not (writes and function == "np.save"):
        return f"{function}(allow_pickle={constants['allow_pickle']})"
    if function == "torch.load" and "weights_only" not in constants:
        return "torch.load without weights_only=True"
    return "yaml.load" if function == "yaml.load" else None


def test_no_data_file_can_run_code() -> None:
    """A test may write a file that would run code, to show that it is refused; nothing may load one.

    What calls pickle, eval and exec is found by ruff.
    """
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {reason}"
        for file in PYTHON
        if UNSAFE.search(file.read_text(encoding="utf-8"))
        for node in nodes(file)
        if isinstance(node, ast.Call) and (reason := unsafe(node, writes=ROOT / "tests" in file.parents))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "call",
    [
        *(
            "torch.load(path)",
            "torch.load(path, weights_only=False)",
            "Module.load_from_checkpoint(x, weights_only=None)",
        ),
        *("np.load(path, allow_pickle=True)", "np.save(path, x, allow_pickle=True)", "yaml.load(text, Loader)"),
    ],
)
def test_what_runs_code_is_found(call: str) -> None:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call) and unsafe(node, writes=False)


def test_the_package_does_not_pickle() -> None:
    pickling = [str(file) for file in PACKAGE if imports(file) & PICKLES]
    assert not pickling


def test_configs_load_weights_only() -> None:
    for file in [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "sweeps").rglob("*.yaml")]:
        assert not re.search(
            r"weights_only:\s*(false|no|off|null|~)", file.read_text(encoding="utf-8"), re.IGNORECASE
        ), file


@functools.cache
def imports(file: Path) -> frozenset[str]:
    """The outermost names of all modules that a file imports, wherever in it; not relative ones."""
    found = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return frozenset(found)


def top_level_imports(files: list[Path]) -> set[str]:
    """Those of several files."""
    return set().union(*map(imports, files))


def declared(requirements: list[str]) -> dict[str, str]:
    """Requirement names, lower case, and the module that each is imported as."""
    names = [re.split(r"[\s\[<>=!~;]", requirement)[0].lower() for requirement in requirements]
    return {name: IMPORTED_AS.get(name, name) for name in names}


def test_imports_and_declared_dependencies_are_the_same_set() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = declared(project["dependencies"])
    third_party = top_level_imports(PACKAGE) - sys.stdlib_module_names - {"fewshot"}
    undeclared = third_party - set(runtime.values()) - set(OPTIONAL)
    assert not undeclared, f"imported by fewshot/ but no dependency in pyproject.toml: {sorted(undeclared)}"
    unused = {name for name, module in runtime.items() if module not in third_party} - set(NOT_IMPORTED)
    assert not unused, f"dependencies in pyproject.toml that nothing in fewshot/ imports: {sorted(unused)}"

    optional = project["optional-dependencies"]
    for module, (group, where) in OPTIONAL.items():
        assert module in declared(optional[group]).values(), f"{module} is in no extra {group}"
        importing = [file for file in PACKAGE if module in imports(file)]
        assert importing == [ROOT / "fewshot" / where], f"{module} is imported by {importing}"
    groups = [group for group in optional if group != "dev"]  # of bench, benchmarks do without
    extra = declared([requirement for group in groups for requirement in optional[group]])
    here = {"tests", "tomli", "tomllib", "fewshot"} | {file.stem for file in TESTS}
    undeclared = top_level_imports(TESTS)
    undeclared -= sys.stdlib_module_names | set(runtime.values()) | set(extra.values()) | here
    assert not undeclared, f"imported by tests/ but not in the extras test and bench: {sorted(undeclared)}"


def test_changelog_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings, "CHANGELOG.md has no '## [version]' heading"
    assert headings[0] == "Unreleased" or headings[0] == version, f"{headings[0]} is newer than pyproject's {version}"


def test_malicious_and_vulnerable_releases_of_lightning_are_excluded() -> None:
    """2.6.2 and 2.6.3 stole credentials when imported (GHSA-w37p-236h-pfx3); before 2.6.6 there is CVE-2026-58659."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (lightning,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "pytorch-lightning")
    refused = [version for version in ("2.6.2", "2.6.3", "2.6.5", "2.6.6") if version not in lightning.specifier]
    assert refused == ["2.6.2", "2.6.3", "2.6.5"]
