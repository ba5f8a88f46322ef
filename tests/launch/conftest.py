"""A checkout with one commit, and a cloud that only remembers what it was asked for."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_TOOLS = ("gcloud", "xpk", "kubectl", "docker", "sbatch", "squeue", "sacct", "scancel")


@dataclass
class Cloud:
    """Folders of the stand-in, and the launcher run against it."""

    checkout: Path
    folder: Path
    output: str = ""
    errors: str = ""

    def launch(self, *arguments: str, **variables: object) -> int:
        """Runs `launch/run.py`; returns its exit status."""
        result = subprocess.run(
            [sys.executable, "launch/run.py", *arguments],
            cwd=self.checkout,
            env=os.environ
            | {
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "FAKE_CLOUD": str(self.folder),
            }
            | {name: str(value) for name, value in variables.items()},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.output, self.errors = result.stdout, result.stderr
        return result.returncode

    def calls(self) -> list[str]:
        """What the launcher asked for."""
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def left(self) -> list[str]:
        """What exists and may cost money."""
        return [thing.name for thing in (self.folder / "things").iterdir()]

    def forget(self) -> None:
        """An empty cloud, as at first."""
        (self.folder / "calls").unlink(missing_ok=True)
        for thing in (self.folder / "things").iterdir():
            thing.unlink()


@pytest.fixture(scope="session")
def checkout(repository, tmp_path_factory) -> Path:
    """A repository with the launcher and a recipe in its only commit, and an ignored file."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed, as in the container images")
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "launch", root / "launch", ignore=ignored)
    (root / "configs").mkdir()
    shutil.copy(repository / "configs" / "demo.py", root / "configs")
    (root / ".gitignore").write_text("__pycache__/\nignored.py\nignored/\n")
    (root / "configs" / "ignored.py").touch()
    (root / "ignored" / "vae").mkdir(parents=True)
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "--quiet"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(("git", *command), cwd=root, check=True)
    return root


@pytest.fixture
def cloud(checkout, tmp_path) -> Cloud:
    """Nothing exists in it yet."""
    (tmp_path / "things").mkdir()
    (tmp_path / "bin").mkdir()
    for tool in _TOOLS:
        (tmp_path / "bin" / tool).symlink_to(Path(__file__).with_name("fake_cloud.sh"))
    return Cloud(checkout, tmp_path)
