"""Loading of a recipe file with command-line overrides into a validated, frozen `Config`."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lidit_jax.config.build import unknown_field
from lidit_jax.config.checks import ENCODER_TEXTS, check
from lidit_jax.config.recipe_choices import Choices, RecipeConfig
from lidit_jax.config.renamed import new_name
from lidit_jax.config.schema import Config
from lidit_jax.config.text import clean_text
from lidit_jax.config.values import LayerChoice, field_types
from lidit_jax.errors import LiditError, quoted
from lidit_jax.io.numbers import parse_integer
from lidit_jax.io.paths import PACKAGE_DATA

# Recipes of version 0.1 import these names from here.
_MOVED = ("lidit_jax.recipes", "lidit_jax.recipe_choices")


def default_config() -> RecipeConfig:
    """Return the default configuration as the locked, typed dictionary that recipes override."""
    config = RecipeConfig(Config().to_dict())
    config.lock()
    return config


def freeze(config: RecipeConfig) -> Config:
    """Check every field and return the frozen `Config`, with texts for encoders cleaned.

    Raises:
      LiditError: for an unknown field, a wrong type or a value out of range; names the field.
    """
    checked = check(Config.from_dict(config.to_dict()))
    # Not in `check`: the texts of a checkpoint must stay as in training.
    cleaned = {name: clean_text(getattr(checked.encoders, name)) for name in ENCODER_TEXTS}
    return dataclasses.replace(checked, encoders=dataclasses.replace(checked.encoders, **cleaned))


def load_recipe(recipe: str, overrides: Iterable[str] = ()) -> Config:
    """Load `configs/NAME.py` (or a packaged recipe by name) and apply `a.b=value` overrides.

    "NAME:WORD,WORD" also applies choices of the recipe (`lidit_jax.config.recipe_choices`).

    Raises:
      LiditError: when the recipe, a choice or a field does not exist, or a value has the wrong
        type.
    """
    name, _, words = recipe.partition(":")
    config = _run_recipe(find_recipe(name), words)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise LiditError(f"--config.{path}: write --config.{path}=VALUE")
        node, name = _find(config, path)
        _set(config, path, _parse(text, node[name]))
    return freeze(config)


def find_recipe(recipe: str) -> Path:
    """Return the file of a recipe given as a path or as the name of a packaged one."""
    checkout = PACKAGE_DATA.parents[1]
    folders = (PACKAGE_DATA / "configs", checkout / "configs")
    name = Path(recipe).name.removesuffix(".py") + ".py"
    for path in (Path(recipe), *(folder / name for folder in folders)):
        if path.is_file():
            if path.suffix != ".py":
                raise LiditError(f"recipe {path} is not Python: see configs/demo.py for one")
            return path
    known = sorted({p.stem for folder in folders for p in folder.glob("*.py")})
    raise LiditError(f"no recipe {recipe!r}: give a file, or one of {quoted(known)}")


def recipe_choices(recipe: str) -> Choices:
    """Return the choices that may follow a recipe's colon; none for most recipes."""
    path = find_recipe(recipe)
    return getattr(_run(path), "CHOICES", Choices({}))


def _run(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"lidit_recipe_{path.stem}", path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run_recipe(path: Path, words: str) -> RecipeConfig:
    try:
        module = _run(path)
        config = module.get_config() if hasattr(module, "get_config") else None
        if words and isinstance(config, RecipeConfig):
            config = getattr(module, "CHOICES", Choices({})).apply(config, words)
    except LiditError:
        raise
    except Exception as error:  # a recipe is a user's program that may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        raise LiditError(f"recipe {path}, line {line}: {_reason(error)}") from error
    if not isinstance(config, RecipeConfig):
        raise LiditError(
            f"recipe {path} has no get_config() that returns a config: see configs/demo.py"
        )
    return config


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ImportError) and error.name in _MOVED:
        return f"{error.name} no longer exists: write `from lidit_jax.config import ...`"
    # ml_collections lists every other field before the most similar one.
    if unknown := re.search(r'Key "(.+?)" does not exist', text):
        if renamed := new_name("", unknown[1]):
            return f"the field {unknown[1]!r} is now {renamed}: use that name"
        close = re.search(r'Did you mean "(.+?)"', text)
        hint = f": did you mean {close[1]!r}?" if close else ""
        return f"there is no field {unknown[1]!r}{hint}"
    return ": ".join([type(error).__name__, *text.splitlines()[:1]])


def _find(config: RecipeConfig, path: str) -> tuple[RecipeConfig, str]:
    """Return the group that holds a field, and the field's name in it."""
    *groups, name = path.split(".")
    node = config
    for i, part in enumerate([*groups, name]):
        fields = list(node)
        if part not in fields:
            here = ".".join(["config", *groups[:i]])
            raise unknown_field(here, part, fields)
        if i < len(groups):
            value = node[part]
            # No other value has fields.
            group = isinstance(value, RecipeConfig)
            node = value if group else RecipeConfig()
    return node, name


def _set(config: RecipeConfig, path: str, value: Any) -> None:
    node, name = _find(config, path)
    current = node[name]
    if isinstance(current, RecipeConfig):
        raise LiditError(f"config.{path} is a group of fields: set one of {quoted(list(current))}")
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(current):
        raise LiditError(
            f"config.{path}={value!r} is {type(value).__name__}, "
            f"must be {type(current).__name__} (now {current!r}){_example(path, value)}"
        )
    node[name] = value


def _example(path: str, value: Any) -> str:
    """Return how to write a tuple of texts on the command line, where one was meant."""
    texts_fit = tuple[str, ...], tuple[LayerChoice, ...]
    if field_types(Config)[path] not in texts_fit or not isinstance(value, str):
        return ""
    texts = tuple(text.strip() for text in value.split(","))
    return f': write --config.{path}="{texts!r}"'


def _parse(text: str, current: Any) -> Any:
    """Parse an override's text as the type of the field's `current` value."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(current, str) and not isinstance(value, str):
        return text  # a folder called 2024_01 is no number
    if type(current) is int and type(value) is not int:
        number = parse_integer(text)
        return value if number is None else number
    return tuple(value) if isinstance(current, tuple) and isinstance(value, list) else value
