"""Old names of fields lead to the new ones, which exist."""

import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.config.renamed import RENAMED_FIELDS, REPLACED_FIELDS, new_name
from lidit_jax.config.schema import Config
from lidit_jax.config.values import field_types
from lidit_jax.errors import LiditError

NAMES = RENAMED_FIELDS | REPLACED_FIELDS
RECIPE = """from lidit_jax.config import default_config

def get_config():
    config = default_config()
    config.{field} = 1
    return config
"""


def test_old_names_are_gone_and_new_ones_are_there():
    fields = field_types(Config)
    assert not NAMES.keys() & fields.keys()
    assert set(NAMES.values()) <= fields.keys()


@pytest.mark.parametrize(("old", "new"), NAMES.items())
def test_overrides_and_recipes_are_told_the_new_name(old, new, tmp_path):
    with pytest.raises(LiditError) as refusal:
        load_recipe("demo", [f"{old}=1"])
    assert str(refusal.value) == f"config.{old} is now config.{new}: use that name"
    recipe = tmp_path / "old.py"
    recipe.write_text(RECIPE.format(field=old))
    name = old.rpartition(".")[2]
    with pytest.raises(LiditError, match=rf"old\.py, line 5: .*{name}' is now config\.{new}: use"):
        load_recipe(str(recipe))


def test_a_name_counts_in_its_own_group_only():
    assert new_name("config.training", "matmul") == "config.training.quantization"
    assert new_name("config.model", "matmul") is None
    assert new_name("config.training", "steps") is None
