"""Where every parameter lies, against a file that people have read.

After a change that is meant, `python -m tests.parallel.test_goldens` writes it anew; read the
difference before committing it. What a step sends has its golden in `test_tpu_compile.py`.
"""

import os
from pathlib import Path

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from lidit_jax.config.schema import MeshConfig
from lidit_jax.parallel.mesh import make_mesh
from tests.parallel.test_rules import spec, state_shapes

GOLDEN = Path(__file__).parent / "golden_shardings.txt"


def lines(tree):
    """A line a parameter: the mesh axis of each of its axes."""
    return [
        f"{'/'.join(key.key for key in path)}: {', '.join(str(axis or '-') for axis in spec(leaf))}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def small_state():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, context=2))
    return state_shapes(mesh, position="conv+rope")


def test_every_parameter_lies_where_it_should_and_its_average_beside_it():
    state = small_state()
    assert lines(state.params) == GOLDEN.read_text().splitlines()
    assert lines(state.ema_params) == lines(state.params)


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(lines(small_state().params)) + "\n")
