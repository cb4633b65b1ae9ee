"""The house of docs/architecture.md, read from the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "gsco"
GROUND = {"errors", "disk", "progress"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "disk": {"errors"},
    "progress": set(),
    "embedded": GROUND,
    "cases": GROUND,
    "specialists": {*GROUND, "embedded", "cases"},
    "retrieval": {*GROUND, "cases"},
    "generalist": {*GROUND, "embedded", "cases"},
    "collaboration": {*GROUND, "cases", "specialists", "retrieval", "generalist"},
    "teaching": {*GROUND, "embedded", "cases", "specialists", "retrieval", "generalist", "collaboration"},
    "evaluation": {*GROUND, "embedded", "cases", "specialists", "retrieval", "generalist", "collaboration"},
    "bootstrapping": {*GROUND, "cases", "retrieval", "generalist", "evaluation"},
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gsco":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gsco")


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_a_floor_knows_nothing_of_those_above(floor: str) -> None:
    files = (
        [SOURCE / f"{floor}.py"]
        if (SOURCE / f"{floor}.py").is_file()
        else sorted((SOURCE / floor).rglob("*.py"))
    )
    assert files
    for path in files:
        for name in imports(path):
            target = name.split(".")[1]
            assert target == floor or target in MAY_IMPORT[floor], (
                f"{path.relative_to(SOURCE)} imports {name}"
            )


def test_every_floor_has_its_place() -> None:
    floors = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert floors - {"__init__", "__main__", "cli"} == set(MAY_IMPORT)


def test_collaboration_never_learns_which_backend_it_speaks_to() -> None:
    for path in (SOURCE / "collaboration").rglob("*.py"):
        for name in imports(path):
            if name.startswith("gsco.generalist."):
                of_the_interface = {"Generalist", "Request", "Example", "takes_examples"}
                assert name.removeprefix("gsco.generalist.") in of_the_interface, f"{path.name}: {name}"


def test_the_cli_imports_what_is_heavy_inside_functions() -> None:
    for path in (SOURCE / "cli").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gsco."):
                assert node.module.startswith("gsco.cli"), f"{path.name} imports {node.module} on top"
