"""Imports run one way, as the architecture draws them; read from the source, so that a lazy import counts too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fewshot"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room is a file or a folder directly in fewshot/. What is not named here may import every room but cli.
BELOW_MODULE = {
    "module_from_file",
    "episode",
    "construction",
    "functional",
    "metrics",
    "methods",
    "data",
    "backbones",
    "base_classes",
    "calibration",
    "handover",
    "predictions",
    "optimization",
    "divergence",
    "ranks",
    "sections",
}
ROOMS: dict[str, set[str]] = {
    "aside": set(),
    "classified": set(),
    "classified_files": {"classified"},
    "classification": {
        *(
            "aside",
            "backbones",
            "calibration",
            "classified",
            "construction",
            "data",
            "functional",
            "methods",
            "module",
            "results",
        ),
        *("saved_model", "trained"),
    },
    "episode": set(),
    "construction": set(),
    "functional": set(),
    "metrics": set(),
    "calibration": set(),
    "ranks": set(),
    "sections": set(),
    "report": {"classified", "data", "functional"},
    "data": {"episode", "ranks", "sections"},
    "backbones": set(),
    "methods": {"episode", "construction", "functional", "sections"},
    "base_classes": {"backbones", "functional", "methods"},
    "handover": {"backbones", "ranks", "sections"},
    "optimization": {"sections"},
    "predictions": {"episode", "ranks"},
    "divergence": {"data", "episode", "ranks"},
    "ledger": {"ledger_runs", "ledger_tables"},
    "ledger_tables": {"ledger_runs"},
    "ledger_runs": set(),
    "results": {"metrics"},
    "record": {"results"},
    "checkpoints": {"backbones", "construction", "module_from_file"},
    "module_from_file": {"backbones", "construction", "methods"},
    "resumption": {"ranks"},
    "runs": {"ranks"},
    "wandb_logging": {"episode", "wandb_session"},
    "wandb_pictures": {"data", "drawings", "episode", "module", "pretrain", "training_pictures", "wandb_logging"},
    "wandb_session": set(),
    "drawings": {"data", "episode", "functional"},
    "training_pictures": {"data", "drawings", "episode", "methods"},
    "module": BELOW_MODULE,
    "mixup": set(),
    "rotation": set(),
    "pretrain": BELOW_MODULE | {"mixup", "rotation"},
}


def module_name(file: Path) -> str:
    """The dotted name of a file of the package: fewshot/data/sampler.py is fewshot.data.sampler."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imported_names(file: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, in full, and the line; `from a import b` gives a.b where that is a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module_name(file).split(".")
                keep = len(package) - node.level + (file.name == "__init__.py")
                base = ".".join(package[:keep] + ([node.module] if node.module else []))
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield (name if name in MODULES else base), node.lineno


def room(module: str) -> str:
    """The part of the package that a module belongs to: fewshot.data.sets.cifar is in data."""
    return [*module.split("."), "__init__"][1]


def own_imports(file: Path) -> Iterator[tuple[str, int]]:
    """Those of `imported_names` that are of this package."""
    yield from ((name, line) for name, line in imported_names(file) if name.split(".")[0] == PACKAGE.name)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_a_room_imports_only_those_below_it(file: Path) -> None:
    own = room(module_name(file))
    if own in ("__init__", "__main__", "cli"):
        return
    for name, line in own_imports(file):
        target = room(name)
        where = f"{file.relative_to(PACKAGE.parent)}:{line} imports {name}"
        assert target not in ("cli", "__main__"), f"{where}; the command line is on top of everything"
        assert target != "__init__", f"{where}; import from the file that defines it, the package itself imports all"
        allowed = ROOMS.get(own)
        if target != own and allowed is not None:
            assert target in allowed, f"{where}; {own} may import {sorted(allowed) or 'nothing of the package'}"


@pytest.mark.parametrize("file", sorted((PACKAGE / "functional").glob("*.py")), ids=module_name)
def test_functional_needs_torch_and_nothing_else(file: Path) -> None:
    for name, line in imported_names(file):
        top = name.split(".")[0]
        assert top in ("torch", PACKAGE.name) or top in sys.stdlib_module_names, f"{file.name}:{line} imports {name}"


def test_no_two_files_import_each_other() -> None:
    below = {name: {target for target, _ in own_imports(file)} - {name} for name, file in MODULES.items()}
    below[PACKAGE.name] = set()  # the package imports all; that nothing imports it back is tested above
    finished: set[str] = set()

    def descend(name: str, path: list[str]) -> None:
        assert name not in path, "imports in a circle: " + " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for target in sorted(below.get(name, ())):
                descend(target, [*path, name])
            finished.add(name)

    for name in sorted(below):
        descend(name, [])


def test_every_import_of_the_package_leads_to_a_file() -> None:
    for file in FILES:
        for name, line in own_imports(file):
            assert name in MODULES, f"{file.relative_to(PACKAGE.parent)}:{line} imports {name}, which is no file here"
