"""Parameters selected by regular expressions of their paths, such as "blocks/.*attention"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from lidit_jax.errors import LiditError, quoted

_SHOWN = 3


def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern to one that matches paths, and modules above them, as a whole.

    Raises:
      re.error: when it is not a regular expression.
    """
    return re.compile(f"(?:{pattern})(?:/.*)?")


def selected(patterns: Sequence[str], paths: Iterable[str]) -> set[str]:
    """Return the paths that a pattern matches as a whole, or of which it matches a module.

    The pattern "blocks" selects "blocks/mlp/up/kernel" and not "other_blocks/kernel"; ".*/bias"
    selects every bias, and "(?!output|blocks).*" all that is neither in output nor in blocks.
    """
    if not patterns:
        return set()
    whole = [compiled(pattern) for pattern in patterns]
    return {path for path in paths if any(one.fullmatch(path) for one in whole)}


def check_patterns(field: str, patterns: Sequence[str], paths: Collection[str]) -> None:
    """Check that every pattern selects something.

    Args:
      field: name of the setting, for the error.
      patterns: its regular expressions.
      paths: of all parameters.

    Raises:
      LiditError: for the first pattern that selects no path, with the nearest ones.
    """
    for pattern in patterns:
        if not selected([pattern], paths):
            modules = _modules(paths)
            near = difflib.get_close_matches(pattern, modules, n=_SHOWN, cutoff=0.4)
            shown = near or [module for module in modules if "/" not in module]
            raise LiditError(
                f"{field}: {pattern!r} matches no parameter as a whole; there are {quoted(shown)}"
            )


def covering(chosen: Collection[str], paths: Iterable[str]) -> list[str]:
    """Return the fewest modules and parameters that together are exactly the chosen paths."""
    left = {path for path in paths if path not in chosen}
    shared = set(_modules(left))
    names = []
    for path in chosen:
        steps = path.split("/")
        above = ("/".join(steps[:length]) for length in range(1, len(steps) + 1))
        names.append(next(name for name in above if name not in shared))
    return sorted(set(names))


def _modules(paths: Iterable[str]) -> list[str]:
    """Return all paths and the modules above them, in order."""
    return sorted(
        {
            "/".join(steps[:n])
            for steps in (p.split("/") for p in paths)
            for n in range(1, len(steps) + 1)
        }
    )
