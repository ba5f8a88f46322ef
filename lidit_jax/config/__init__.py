"""The configuration of a run: recipes, command-line overrides, and the typed `Config` they make.

Recipes import what they need from here:

```python
from lidit_jax.config import Choices, default_config
```
"""

from lidit_jax.config.load import default_config, load_recipe
from lidit_jax.config.recipe_choices import Choices, Placement
from lidit_jax.config.schema import Config

__all__ = ["Choices", "Config", "Placement", "default_config", "load_recipe"]
