"""Apache Beam pipeline that indexes or converts data sets too large for one machine.

Files are written by the same function as in `lidit_jax.data.shared_work`, with equal content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lidit_jax.data.file_errors import FileErrors
from lidit_jax.data.shared_work import Write
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import to_path
from lidit_jax.io.progress import Progress

_MISTAKE = ".mistake"


class BeamWork:
    """Replacement of `share_work`: `BeamWork(["--runner=DataflowRunner", …])`."""

    def __init__(self, arguments: Sequence[str] = ()):
        """Parse the options; nothing starts yet.

        Args:
          arguments: Beam's own options; none for its direct runner, on this machine.

        Raises:
          LiditError: when Beam is not installed, or refuses an option.
        """
        try:
            from apache_beam.options import pipeline_options  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise LiditError("--beam needs Apache Beam: pip install 'lidit-jax[beam]'") from error
        try:
            self._options = pipeline_options.PipelineOptions([*arguments])
        except SystemExit as end:  # by argparse, which has printed the reason
            raise LiditError(f"--beam: Beam refuses {' '.join(arguments)}") from end

    def __call__(
        self,
        folder: Path,
        tasks: Mapping[str, Any],
        write: Write,
        claims: Path,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Return when every file is there; see `share_work`.

        Raises:
          LiditError: when files cannot be written, after all others have been; or when the
            pipeline fails.
        """
        import apache_beam as beam  # pyright: ignore[reportMissingImports]

        tell = progress or Progress()
        present = {path.name for path in folder.iterdir()} if folder.exists() else set()
        missing = [name for name in tasks if name not in present]
        tell(len(tasks) - len(missing), len(tasks))
        if not missing:
            return
        tell.note(f"Beam writes {len(missing)} files")
        claims.mkdir(parents=True, exist_ok=True)
        attempt = _Attempt(write, os.fspath(folder), os.fspath(claims))
        try:
            with beam.Pipeline(options=self._options) as pipeline:
                named = pipeline | beam.Create([(name, tasks[name]) for name in missing])
                _ = named | beam.Reshuffle() | beam.Map(attempt)
        except Exception as error:  # each runner has its own exception types
            reason = str(error).partition("\n")[0][:300]
            raise LiditError(
                f"the Beam pipeline failed ({type(error).__name__}: {reason}): start again, what "
                "is done stays done"
            ) from error
        errors = FileErrors(folder)
        for line in _take_mistakes(claims):
            errors.add(line)
        errors.raise_all()
        tell(len(tasks), len(tasks))


class _Attempt:
    """Writes one file, on any worker; stores an error in a file for the launching process."""

    def __init__(self, write: Write, folder: str, claims: str):
        self._write, self._folder, self._claims = write, folder, claims

    def __call__(self, task: tuple[str, Any]) -> None:
        name, what = task
        try:
            self._write(what, to_path(self._folder) / name)
        except (LiditError, OSError) as error:
            text = str(error) if isinstance(error, LiditError) else f"cannot write {name} ({error})"
            with atomic_file(to_path(self._claims) / f"{name}{_MISTAKE}") as stream:
                stream.write(json.dumps(text).encode())


def _take_mistakes(folder: Path) -> Iterator[str]:
    """Return the error of each file, in the order of names, and delete the error files."""
    if folder.exists():
        for file in sorted(folder.iterdir()):
            if file.name.endswith(_MISTAKE):
                yield json.loads(file.read_bytes())
                file.unlink()
