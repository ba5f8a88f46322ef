"""Expansion of a path to files: a file, a folder, or a pattern `photos/{000..123}.tar`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import islice

from lidit_jax.data.file_errors import FileErrors
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files

_SPECIAL = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SHARD_NUMBER = re.compile(r"-\d+-of-\d+$")
_MOST = 100_000


class NamedFiles:
    """Files selected by a path, in the order of their names relative to one folder."""

    def __init__(self, path: str, *suffixes: str):
        """Set the path; no file is read yet.

        Args:
          path: a file, a folder, or a pattern with `*`, `?`, `[…]`, `**`, `{000..123}`, `{a,b}`.
          *suffixes: the ends of the files' names, such as ".tar", before a shard's number such as
            "-00000-of-00010"; other files of a folder are excluded.
        """
        self._suffixes, self._pattern, self._one = suffixes, "", False
        folder = path.rstrip("/")
        if _SPECIAL.search(path) and not os.path.exists(path):
            parts = path.split("/")
            fixed = next(i for i, part in enumerate(parts) if _SPECIAL.search(part))
            folder, self._pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
        elif self._ends(path) and not os.path.isdir(path):
            folder, _, self._pattern = path.rpartition("/")
            self._one = True
        if self._pattern:
            folder = folder or ("/" if path.startswith("/") else ".")
        self.files = Files(folder)

    def find(self) -> dict[str, str]:
        """Return names, in order, and for each a text that changes when the file may have changed.

        Raises:
          LiditError: when there is none, or an explicitly named one is missing.
        """
        if self._one:
            return {self._pattern: self.files.version(self._pattern)}
        listing = self.files.listing()
        errors = FileErrors(self.files.root)
        errors.add(*listing.errors)
        errors.raise_all()
        if not self._pattern:
            found = {n: v for n, v in listing.files.items() if self._ends(n)}
        else:
            found = self._match(listing.files)
        if not found:
            raise LiditError(
                f"{self.files.named(self._pattern)} names no file: mend the pattern"
                if self._pattern
                else f"{self.files.root} holds no {self._suffixes[0]}: name a folder that does"
            )
        return found

    def others(self) -> list[str]:
        """Return a folder's files with other endings; none if the path is not a folder."""
        if self._pattern:
            return []
        return [name for name in self.files.listing().files if not self._ends(name)]

    @property
    def chosen(self) -> bool:
        """Return whether the path selects some files of a folder."""
        return bool(self._pattern)

    def _ends(self, name: str) -> bool:
        return _SHARD_NUMBER.sub("", name.lower()).endswith(self._suffixes)

    def _match(self, files: dict[str, str]) -> dict[str, str]:
        names, missing = set[str](), list[str]()
        for pattern in expand_braces(self._pattern):
            if _SPECIAL.search(pattern):
                parts = pattern.split("/")
                names |= {name for name in files if _matches(name.split("/"), parts)}
            elif pattern in files:
                names.add(pattern)
            else:
                missing.append(pattern)
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise LiditError(
                f"{self.files.named(missing[0])}{more} does not exist: copy it there, or name "
                "those that do"
            )
        return {name: files[name] for name in sorted(names)}


def expand_braces(pattern: str) -> list[str]:
    """Expand braces as a shell does: `{08..11}.tar`, `{train,val}/*.tar`.

    Raises:
      LiditError: for braces that expand to nothing, or to more than 100,000 names.
    """
    names = list(dict.fromkeys(islice(_expanded(pattern), _MOST + 1)))
    if len(names) > _MOST:
        raise LiditError(f"{pattern} names more than {_MOST:,} files: name fewer")
    return names


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    values: Iterable[str]
    if span := _RANGE.fullmatch(match[1]):
        first, last = int(span[1]), int(span[2])
        padded = any(len(end) > 1 and end.startswith("0") for end in span.groups())
        width = max(map(len, span.groups())) if padded else 0
        step = 1 if last >= first else -1
        values = (f"{number:0{width}d}" for number in range(first, last + step, step))
    elif "," in match[1]:
        values = match[1].split(",")
    else:
        raise LiditError(f"{pattern}: {match[0]} names nothing: write {{000..123}} or {{a,b}}")
    for value in values:
        yield from _expanded(pattern[: match.start()] + value + pattern[match.end() :])


def _matches(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[start:], pattern[1:]) for start in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])
