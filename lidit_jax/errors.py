"""The one exception for mistakes a user can fix, and how its messages list names."""

from __future__ import annotations

from collections.abc import Iterable


class LiditError(Exception):
    """A user's mistake: the message names the thing that is wrong and the remedy, in one line.

    The command line prints it as `lidit: error: …` and exits with status 2, without a traceback.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """


def quoted(names: Iterable[object]) -> str:
    """The names that a user may choose from, as messages list them: 'a', 'b'."""
    return ", ".join(repr(name) for name in names)
