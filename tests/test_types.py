"""Shapes in annotations are checked in every call: see `tests/type_checks.py`."""

import ast
import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import lidit_jax
from lidit_jax.config.prompt_format import TokenBatch
from lidit_jax.config.schema import ModelConfig, RefinerConfig
from lidit_jax.models.layers import masked_mean
from lidit_jax.models.lidit import LIDiT

PACKAGE = Path(lidit_jax.__file__).parent
WITH_SHAPES = sorted(
    str(file.relative_to(PACKAGE.parent).with_suffix("")).replace("/", ".")
    for file in PACKAGE.rglob("*.py")
    if re.search(r"^from jaxtyping import", file.read_text(), re.MULTILINE)
)


def test_a_function_refuses_a_mask_of_another_length():
    tokens = jnp.ones((2, 5, 4))
    assert masked_mean(tokens, jnp.ones((2, 5), bool)).shape == (2, 4)
    with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
        masked_mean(tokens, jnp.ones((2, 1), bool))


def test_a_module_takes_streams_of_different_lengths_and_refuses_masks_of_other_lengths():
    refiner = RefinerConfig(blocks=1, collaborative_blocks=1)
    model = LIDiT(ModelConfig(width=16, depth=1, heads=2, patch=2, refiner=refiner))
    features = (jnp.ones((2, 5, 8)), jnp.ones((2, 7, 12)))

    def run(*lengths):
        masks = tuple(jnp.ones((2, length), bool) for length in lengths)
        arguments = jnp.ones((2, 4, 4, 4)), jnp.ones(2), features, masks, (1, 2)
        out, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), *arguments))
        return out.shape

    assert run(5, 7) == (2, 4, 4, 4)
    with pytest.raises(jaxtyping.TypeCheckError, match="masks"):
        run(7, 5)


def test_a_dataclass_refuses_an_array_of_another_rank():
    fields = {"ids": np.ones((2, 6), np.int32), "prefix_length": 1, "truncated": 0}
    assert TokenBatch(mask=np.ones((2, 6), bool), **fields).truncated == 0
    with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
        TokenBatch(mask=np.ones(6, bool), **fields)


def shaped(tree):
    """The annotations of a module that end in a string, as in `Float[Array, "B S"]`."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    own = {alias.name for node in imports if node.module == "jaxtyping" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in own:
            last = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else None
            if isinstance(last, ast.Constant):
                yield node, last.value


@pytest.mark.parametrize("name", WITH_SHAPES)
def test_shapes_parse_and_none_is_lost(name):
    """jaxtyping leaves unchecked what does not evaluate, and reads sums only when it meets them."""
    module = importlib.import_module(name)
    annotations = list(shaped(ast.parse(Path(module.__file__).read_text())))
    assert annotations or name.endswith("guided_model"), "jaxtyping is imported for nothing"
    for node, shape in annotations:
        eval(ast.unparse(node), vars(module))
        for axis in shape.split():
            if axis != "...":
                # `{steps}` is the argument of that name.
                ast.parse(re.sub(r"\{[\w.]+\}", "1", axis.lstrip("#*_?")) or "_", mode="eval")
