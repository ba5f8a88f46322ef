"""Exception for mistakes that users can fix, and formatting of names in its messages."""

from __future__ import annotations

from collections.abc import Iterable


class LiditError(Exception):
    """User mistake: the message states in one line what is wrong and the remedy.

    The command line prints it as `lidit: error: …` and exits with status 2, without a traceback.
    Any other exception is a bug in lidit-jax and keeps its traceback.
    """


def quoted(names: Iterable[object]) -> str:
    """Format names that a user may choose from, for messages: 'a', 'b'."""
    return ", ".join(repr(name) for name in names)
