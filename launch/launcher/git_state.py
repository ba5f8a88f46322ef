"""Commit to launch: exactly the files of HEAD, never files that are not committed."""

from __future__ import annotations

import posixpath
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.commands import LaunchError

_SHORT = 12


class Checkout:
    """Git work tree without changes, whose HEAD is copied to other machines."""

    def __init__(self, root: Path):
        """Check the work tree in `root`.

        Raises:
          LaunchError: when it is no git work tree, or holds anything that is not committed.
        """
        self.root = root
        changes = self._git("status", "--porcelain").splitlines()
        if changes:
            names = ", ".join(line[3:] for line in changes[:3])
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise LaunchError(
                f"not committed: {names}{more}; the run starts from a commit, so that it can be "
                "repeated: commit or stash them"
            )
        self.commit = self._git("rev-parse", "HEAD").strip()
        self.short = self.commit[:_SHORT]

    def check_recipe(self, config: str) -> None:
        """Check that the commit has a recipe.

        Args:
          config: value of `--config`: a file or a recipe's name, with choices after a colon.

        Raises:
          LaunchError: when it is a file that is absent, elsewhere, or ignored by git.
        """
        path = config.partition(":")[0]
        if not path.endswith(".py"):
            return
        if not self.holds(path):
            raise LaunchError(
                f"--config={config}: name a recipe by its path inside the repository, such as "
                "configs/demo.py; other files do not exist where the run happens"
            )

    def holds(self, path: str) -> bool:
        """Return whether the commit has this file, or files in this folder."""
        path = posixpath.normpath(path)
        committed = self._git("ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0")
        return any(name == path or name.startswith(f"{path}/") for name in committed)

    @contextmanager
    def archive(self) -> Iterator[Path]:
        """Write HEAD to a temporary gzipped tar file, without `.git`."""
        with tempfile.TemporaryDirectory(prefix="lidit-") as folder:
            target = Path(folder) / f"lidit-{self.short}.tar.gz"
            self._git("archive", "--format=tar.gz", f"--output={target}", "HEAD")
            yield target

    def _git(self, *arguments: str) -> str:
        try:
            result = subprocess.run(
                ("git", "-C", str(self.root), *arguments), capture_output=True, text=True
            )
        except FileNotFoundError:
            raise LaunchError("git is not installed: sudo apt-get install git") from None
        if result.returncode:
            raise LaunchError(
                f"git {arguments[0]} failed in {self.root} ({result.stderr.strip()[:200]}): start "
                "from a git clone of the repository"
            )
        return result.stdout
