"""Configuration of a run: the typed `Config`, recipes that build it, and command-line overrides.

It holds settings, their validation, and the layout of prompts, not the code that they configure.
Recipes import from here:

```python
from lidit_jax.config import Choices, default_config
```

Names are imported on first use, so that `lidit --help` starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lidit_jax.config.load import default_config, load_recipe
    from lidit_jax.config.recipe_choices import Choices, Placement
    from lidit_jax.config.schema import Config

__all__ = ["Choices", "Config", "Placement", "default_config", "load_recipe"]

_MODULES = {
    "Choices": "recipe_choices",
    "Config": "schema",
    "Placement": "recipe_choices",
    "default_config": "load",
    "load_recipe": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
