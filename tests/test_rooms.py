"""The package is a house of rooms: each imports only rooms that stand before it, in one order."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = (
    "errors",
    "io",
    "hardware",
    "weights",
    "config",
    "diffusion",
    "parallel",
    "attention",
    "models",
    "encoders",
    "checkpoints",
    "autoencoders",
    "data",
    "sampling",
    "pytorch",
    "evaluation",
    "training",
    "planning",
    "benchmarks",
    "commands",
    "cli",
)
"""From the ground up. `lidit_jax/__init__.py`, the front door, may look into any of them."""
PACKAGE = Path(__file__).parents[1] / "lidit_jax"
DATA = ("packaged", "py.typed")
"""What lies in the package and is no code."""


def room(module: str) -> str:
    """The room of a dotted name; empty for the package itself."""
    return [*module.split("."), ""][1]


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, lazily or not, for types or not."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # only in what is copied into an exported folder
                yield node.lineno, f"lidit_jax.{file.parent.name}"
            elif node.module == "lidit_jax":
                yield from ((node.lineno, f"lidit_jax.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, str(node.module)


def upward(package: Path) -> list[str]:
    """Every import of a room that does not stand before the importing one."""
    found = []
    for file in sorted(package.rglob("*.py")):
        inside = file.relative_to(package)
        own = inside.parts[0].removesuffix(".py")
        if inside == Path("__init__.py") or own in DATA:
            continue
        for line, name in imported(file):
            if name.split(".")[0] != "lidit_jax":
                continue
            other = room(name)
            if other != own and (other not in ROOMS or ROOMS.index(other) > ROOMS.index(own)):
                found.append(f"{inside}:{line} imports {name}")
    return found


def test_no_room_imports_one_that_stands_after_it():
    assert upward(PACKAGE) == []


def test_nothing_lies_loose_beside_the_rooms():
    names = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    rooms = {name if (PACKAGE / name).is_dir() else f"{name}.py" for name in ROOMS}
    assert names == rooms | {"__init__.py", *DATA}
    loose = {name for name in names if name.endswith(".py")}
    assert loose == {"__init__.py", "errors.py", "cli.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "from lidit_jax.training import loop",
        "import lidit_jax.sampling.pipeline",
        "from lidit_jax import Pipeline",
        "def lazy():\n    from lidit_jax.cli import main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lidit_jax.data import cache",
    ],
)
def test_an_arrow_that_points_up_is_found(statement, tmp_path):
    file = tmp_path / "models" / "planted.py"
    file.parent.mkdir()
    file.write_text(statement)
    (found,) = upward(tmp_path)
    assert found.startswith("models/planted.py:")


def test_arrows_that_point_down_or_stay_inside_are_none(tmp_path):
    file = tmp_path / "models" / "innocent.py"
    file.parent.mkdir()
    file.write_text("from lidit_jax.config.schema import Config\nimport lidit_jax.models.dit\n")
    assert upward(tmp_path) == []


def test_no_file_of_the_project_is_longer_than_400_lines():
    """A longer one holds a second concept."""
    files = [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    assert [f.name for f in files if f.read_text(encoding="utf-8").count("\n") > 400] == []
