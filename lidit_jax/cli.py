"""The `lidit` command: parses arguments, runs one command, prints user errors as one line.

Each command is a module of `lidit_jax.commands` with two functions, `add_parser` and `run`.
Other subpackages are imported inside `run`, so that `lidit --help` is fast.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import itertools
import logging as standard_logging
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from lidit_jax.commands import (
    bench,
    cache,
    convert,
    data,
    doctor,
    evaluate,
    export,
    plan,
    sample,
    train,
    tune,
)
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir

_COMMANDS = (
    train,
    sample,
    data,
    cache,
    evaluate,
    export,
    convert,
    plan,
    bench,
    tune,
    doctor,
)

_SHOWN = 60

_EXAMPLES = """\
start here:
  lidit doctor                                                what this machine can do
  lidit sample --checkpoint=demo --prompt="a red circle" --out=circle.png
  lidit train --config=configs/demo.py --workdir=runs/demo    train; run it again to resume
  lidit sample --checkpoint=runs/demo --prompt="three green stars" --out=stars.png
  lidit eval scenes --checkpoint=runs/demo --out=runs/demo-scores
  lidit data index webdataset:photos --out=photos-index       scan a large data set once
  lidit cache --config=my_recipe                              encode its data before training
  lidit export --checkpoint=runs/demo --out=my-model          a small folder to share
  lidit convert to-torch runs/demo torch-model                a folder that needs no JAX
  lidit plan --config=lidit_10b --topology=v5p:8x8x16         predict a run on a pod

Help for a command: lidit sample --help
Exit status: 0 success, 1 a failed check (doctor, plan, bench), 2 wrong arguments or settings.
"""


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises `LiditError` with the most similar option.

    Attributes:
      other_names: maps other spellings of options to the options of this program.

    Arguments after "--" become `rest` if that has a default: the options of another program.
    """

    other_names: Mapping[str, str] = MappingProxyType({})

    # Accepts all three overloads of argparse's stub, which pyright does not detect.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args=None, namespace=None
    ):
        given = sys.argv[1:] if args is None else list(args)
        if "--" in given and self.get_default("rest") is not None:
            end = given.index("--")
            self.set_defaults(rest=given[end + 1 :])
            given = given[:end]
        options = [name for name in self._option_string_actions if name.startswith("--")]
        for argument in given if self._subparsers is None else ():
            name = argument.partition("=")[0]
            if name.startswith("--") and name != "--" and name not in options:
                self.error(f"{self.prog} has no option {name}{self._hint(name, options)}")
        return super().parse_known_args(given, namespace)

    def _hint(self, name: str, options: Sequence[str]) -> str:
        name = name.replace("_", "-")
        if name in self.other_names:
            return f": write {self.other_names[name]}"
        close = difflib.get_close_matches(name, options, n=1)
        return f": did you mean {close[0]}?" if close else ""

    def error(self, message: str) -> NoReturn:
        raise LiditError(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status (see `lidit --help`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may hold bytes that are not text: printed as \udcff, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            status = _run(arguments)
        except SystemExit as end:  # argparse exits this way after --help
            status = int(end.code or 0)
        sys.stdout.flush()
        return status
    except LiditError as error:
        print(f"lidit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lidit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe; Python's flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # Many places open files; all other errors are reported where they occur.
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = f"{error.filename}"
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
        print(f"lidit: error: {shown!r} is too long for a file name", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = _Parser(
        prog="lidit",
        description="Text-to-image diffusion with frozen LLMs as prompt encoders (LI-DiT) in JAX.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def _run(arguments: list[str]) -> int:
    overrides = []
    if arguments[:1] in (["train"], ["cache"], ["plan"], ["bench"]):
        overrides, arguments = train.split_overrides(arguments)
    _check_values(arguments)
    parser = build_parser()
    options = parser.parse_args(arguments, argparse.Namespace(overrides=overrides))
    if options.version:
        from importlib.metadata import version

        print(f"lidit-jax {version('lidit-jax')}")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    _prepare_environment()
    return options.run(options)


def _check_values(arguments: Sequence[str]) -> None:
    """Refuse "--" as the value of an option, which argparse of Python 3.11 and 3.12 drops."""
    for argument in itertools.takewhile(lambda text: text != "--", arguments):
        name, equals, value = argument.partition("=")
        if name.startswith("-") and equals and value == "--":
            raise LiditError(f"{name}=-- has no value: write one after the equals sign")


def _prepare_environment() -> None:
    """Set environment variables that JAX and others read at import; the user's values are kept."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_dir() / "xla"))
    # Errors are still printed; progress messages of XLA and Orbax are not.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    from absl import flags, logging

    # Orbax logs tracebacks of errors that it also raises, and that commands report in one line;
    # so does asyncio, for each array of a failed save.
    logging.set_verbosity(logging.FATAL)
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    sys.unraisablehook = _report_unraisable
    # Grain's loader reads absl flags and fails if they are not parsed.
    flags.FLAGS.mark_as_parsed()


def _report_unraisable(unraisable: Any) -> None:
    """Report unraisable exceptions as usual, except those of threads of a failed save."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main())
