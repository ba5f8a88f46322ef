"""Hooks of MkDocs: pages made from files outside of `docs/`, and links that work in both places.

In the repository, pages link to files as they lie there (`../CONTRIBUTING.md`). Some of these files
are pages of the site (`PAGES`); links to the others become plain text.
"""

from __future__ import annotations

import ast
import dataclasses
import posixpath
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "lidit_jax/config/schema.py"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "lidit_jax/packaged/demo/README.md": "demo-model.md",
    SCHEMA: "configuration.md",
}
"""Files of the repository that are pages of the site."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_TYPE_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false"}
_INTRODUCTION = """# Configuration reference

Every field that a recipe or the command line can set, as in
`lidit train --config=demo --workdir=runs/demo --config.model.depth=12`. "Ours" marks a choice that
the paper leaves open. This page is generated from `lidit_jax/config/schema.py`.
"""


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie elsewhere in the repository, and the configuration reference."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        content = configuration_page() if source == SCHEMA else (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Rewrites a page's links into the repository."""
    origins = {site: source for source, site in PAGES.items()}
    name = page.file.src_uri
    return site_links(markdown, origins.get(name, f"docs/{name}"))


def site_links(markdown: str, source: str) -> str:
    """Links to files of the repository as links between pages of the site.

    Args:
      markdown: of a page.
      source: path of the page in the repository, which its links start from.
    """
    page = _in_site(source)

    def rewritten(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups()
        if ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = _in_site(path)
        if inside is None:
            return text if (ROOT / path).exists() else link[0]
        here = posixpath.relpath(inside, posixpath.dirname(page or "") or ".")
        return f"{image}[{text}]({here}{anchor or ''})"

    return _LINK.sub(rewritten, markdown)


def _in_site(path: str) -> str | None:
    """Page or image of the site for a file of the repository, if there is one."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def configuration_page() -> str:
    """The configuration reference: a section per group, a row per field."""
    sys.path.insert(0, str(ROOT))
    try:
        from lidit_jax.config.schema import Config
    finally:
        sys.path.remove(str(ROOT))
    groups = list(_groups(Config, ""))
    return "\n\n".join([_INTRODUCTION.strip(), *groups]) + "\n"


def _groups(group: type, place: str) -> Iterator[str]:
    """The sections of a group of fields, and of the groups inside it."""
    hints = typing.get_type_hints(group, include_extras=True)
    texts = _docstrings()[group.__name__]
    rows, inner = [], []
    for field in dataclasses.fields(group):
        name = f"{place}.{field.name}" if place else field.name
        if dataclasses.is_dataclass(hints[field.name]):
            inner.append((hints[field.name], name))
            continue
        values = _values(hints[field.name])
        text = _cell(texts.get(field.name, ""))
        rows.append(f"| `{name}` | {values} | `{field.default!r}` | {text} |")
    heading = f"## {place}" if place else "## General"
    lines = ["| field | values | default | meaning |", "|---|---|---|---|", *rows]
    yield "\n".join([heading, "", group.__doc__ or "", "", *lines])
    for one, name in inner:
        yield from _groups(one, name)


def _values(hint: Any) -> str:
    """What a field may be, from its type: its choices, or its kind and range."""
    from lidit_jax.config.values import literal_values, ranges

    if choices := literal_values(hint):
        return ", ".join(f"`{choice!r}`" for choice in choices)
    requirements = [one.requirement for one in ranges(hint)]
    if requirements:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple:
        kind = f"list of {_items(typing.get_args(hint)[0])}"
    else:
        kind = _TYPE_NAMES[hint]
    limits = (one.removeprefix("must be ") for one in requirements)
    return _cell("; ".join([kind, *limits]))


def _items(hint: Any) -> str:
    """The items of a list, in the plural."""
    from lidit_jax.config.values import literal_values

    if hint in _TYPE_NAMES:
        return f"{_TYPE_NAMES[hint]}s"
    if choices := literal_values(hint):
        return ", ".join(f"`{choice!r}`" for choice in choices)
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return f"lists of {_items(inner[0])}"
    return " or ".join(map(_items, inner))


def _docstrings() -> dict[str, dict[str, str]]:
    """The text below each field of each class of the configuration."""
    found: dict[str, dict[str, str]] = {}
    files = [ROOT / SCHEMA, *sorted((ROOT / SCHEMA).parent.glob("data_*.py"))]
    for node in [node for file in files for node in ast.parse(file.read_text("utf-8")).body]:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = found.setdefault(node.name, {})
        for field, below in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[field.target.id] = str(below.value.value).strip()
    return found


def _cell(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
