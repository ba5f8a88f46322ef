"""Inputs of a run that are paths: images, encoders, an autoencoder, initial weights.

Found without running the recipe, which needs packages that the launcher does not: in literal
values of the recipe's file, of the choices after its colon, and of the command line's overrides.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from launcher.commands import LaunchError
from launcher.git_state import Checkout
from launcher.job import Job, mounted_buckets

_MOUNT = "copy it to a bucket and name it as /gcs/BUCKET/FOLDER, which is mounted there"
_HUB = f"name its hub id, or {_MOUNT}"
_REMEDIES = {
    "data.path": _MOUNT,
    "encoders.sources": _HUB,
    "vae.source": _HUB,
    "training.init_from": "copy it to a bucket and name it as gs://BUCKET/FOLDER",
}
"""Fields with paths, and the remedy if one is a path on this machine."""


def inputs_of(job: Job, checkout: Checkout) -> list[tuple[str, str]]:
    """Return fields of the run's configuration and their values, as far as these are literals."""
    path, _, words = job.config.partition(":")
    file = checkout.root / (path if path.endswith(".py") else f"configs/{path}.py")
    fields: dict[str, object] = {}
    if file.is_file():
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # `lidit train` reports it in more detail
            tree = ast.Module([], [])
        fields.update(_assigned(tree))
        fields.update(_chosen(tree, words.split(",")))
    fields.update(_overrides(job.arguments))
    found = []
    for name in _REMEDIES:
        value = fields.get(name, "")
        values = value if isinstance(value, (tuple, list)) else (value,)
        found += [(name, one) for one in values if isinstance(one, str) and one]
    return found


def refuse_local(inputs: list[tuple[str, str]], checkout: Checkout) -> None:
    """Refuse paths that are on this machine only: only the commit is copied to the others.

    Raises:
      LaunchError: states the field and the remedy.
    """
    for name, value in inputs:
        if _is_local(name, value, checkout):
            raise LaunchError(
                f"config.{name}={value} is on this machine, and only the commit is copied to the "
                f"others: {_REMEDIES[name]}"
            )


def buckets_to_mount(job: Job, inputs: list[tuple[str, str]]) -> list[str]:
    """Return buckets that arguments or recipe access as folders, `/gcs/BUCKET/…`."""
    return mounted_buckets([*job.arguments, *(value for _, value in inputs)])


def _is_local(name: str, value: str, checkout: Checkout) -> bool:
    if "://" in value or value.startswith("/gcs/") or checkout.holds(value):
        return False
    if name == "data.path":
        return True
    if name == "training.init_from":
        return value != "demo"
    looks_like_a_path = value.startswith(("/", "~", ".")) or value.endswith(".gguf")
    here = any((folder / value).exists() for folder in (Path(), checkout.root))
    return looks_like_a_path or value.count("/") > 1 or here


def _assigned(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """Yield fields and values of lines such as `config.data.path = "…"`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                name = ast.unparse(target).partition(".")[2]
                if name in _REMEDIES:
                    yield name, _literal(node.value)


def _chosen(tree: ast.Module, words: list[str]) -> Iterator[tuple[str, object]]:
    """Yield fields and values of the recipe's choices: `"word": {"training.init_from": "…"}`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value in words and isinstance(value, ast.Dict):
                for field, content in zip(value.keys, value.values, strict=True):
                    if isinstance(field, ast.Constant) and field.value in _REMEDIES:
                        yield str(field.value), _literal(content)


def _overrides(arguments: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    """Yield fields and values of `--config.data.path=…` and `--config.data.path …`."""
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--config.")
        if name == option or name not in _REMEDIES:
            continue
        text = value if equals else "".join(arguments[index + 1 : index + 2])
        several = name == "encoders.sources"
        yield name, _literal(text) if several else text


def _literal(written: ast.expr | str) -> object:
    """Return the value of a literal; None for a value that the recipe computes."""
    try:
        return ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return written if isinstance(written, str) else ""
