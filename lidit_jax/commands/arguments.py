"""Argument types and parser layout shared by the commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from lidit_jax.io.numbers import parse_integer

CHECKPOINT_HELP = 'a workdir of "lidit train", one of its checkpoints, or "demo" (packaged)'


def add_command(
    subparsers: Any,
    name: str,
    summary: str,
    examples: str,
    run: Callable[[argparse.Namespace], int] | None,
    other_names: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    """Add a subparser with examples after its options.

    Args:
      subparsers: subparsers of the parser that gets the command.
      name: name of the command.
      summary: one-line description, for the list of commands.
      examples: example command lines.
      run: function that runs the command.
      other_names: maps other spellings of options to the options of this program.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.other_names = dict(other_names or {})
    return parser


def add_encoder_option(parser: argparse.ArgumentParser) -> None:
    """Add `--encoder NAME=PATH`: location of a checkpoint's text encoder on this machine."""
    parser.add_argument(
        "--encoder",
        action="append",
        type=_name_and_path,
        default=[],
        metavar="NAME=PATH",
        dest="encoders",
        help="new PATH of a text encoder that was moved since training, NAME being its old path or "
        "the last part of it; repeatable. Encoders in the folders of $LIDIT_ENCODERS are found by "
        "content",
    )


def _name_and_path(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path


def positive_int(text: str) -> int:
    """Parse a whole number above 0, in any form that `parse_integer` reads."""
    return _checked(text, parse_integer, "a whole number above 0", lambda value: value > 0)


def non_negative_int(text: str) -> int:
    """Parse a whole number, 0 or above, that fits in 32 bits (seeds)."""
    return _checked(
        text, parse_integer, "a whole number from 0 to 4294967295", lambda v: 0 <= v < 2**32
    )


def guidance_scale(text: str) -> float:
    """Parse a guidance scale, 0 or above; 1 turns guidance off."""
    return _checked(text, float, "a number from 0 to 100", lambda value: 0 <= value <= 100)


def price(text: str) -> float:
    """Parse an amount of money."""
    return _checked(text, float, "a number, 0 or above", lambda value: 0 <= value < float("inf"))


_UNITS = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}


def file_size(text: str) -> int:
    """Parse a size such as "15MiB" or "2GB" to bytes; one megabyte at least."""
    number, unit = text.rstrip("BGMi"), text[len(text.rstrip("BGMi")) :]
    wanted = f"a size of 1MB or more, with {', '.join(_UNITS)}"
    size = _checked(number, float, wanted, lambda v: v * _UNITS.get(unit, 0) >= 10**6)
    return int(size * _UNITS[unit])


def minutes(text: str) -> float:
    """Parse a time in minutes, from a tenth of a minute to a day."""
    return _checked(text, float, "minutes from 0.1 to 1440", lambda v: 0.1 <= v <= 1440)


def _checked(
    text: str, read: Callable[[str], Any], wanted: str, valid: Callable[[Any], bool]
) -> Any:
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def fraction(text: str) -> float:
    """Parse a fraction, 0 to 1."""
    return _checked(text, float, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def image_size(text: str) -> tuple[int, int]:
    """Parse a side, or "WIDTHxHEIGHT", to (height, width) in pixels."""
    width, times, height = text.partition("x")
    width, height = _pair(text, (width, height if times else width), "a size: write 96 or 96x48")
    return height, width


def aspect_ratio(text: str) -> tuple[int, int]:
    """Parse "WIDTH:HEIGHT" to a pair."""
    width, _, height = text.partition(":")
    return _pair(text, (width, height), "a shape: write 16:9")


def _pair(text: str, parts: tuple[str, str], wanted: str) -> tuple[int, int]:
    """Parse two whole numbers above 0; errors show the whole text."""
    try:
        return positive_int(parts[0]), positive_int(parts[1])
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
