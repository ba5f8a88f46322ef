"""A checkpoint that training left sharded is exported without ever being held."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from lidit_jax.checkpoints.migrations import FORMAT
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.weights.mapped_tensors import list_tensors

from .exported import make_bundle


def test_a_sharded_checkpoint_is_never_held(tiny_config, repository, tmp_path):
    """Weights over 8 devices: the export grows by the largest parameter as stored and as read.

    That is a stack of all blocks, here more than a quarter of the model; the rest never counts.
    """
    config = tiny_config()
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, width=512, depth=10)
    )
    bundle = open_model(make_bundle(tmp_path / "bundle", config))
    params = bundle.load()
    mesh = jax.make_mesh((8,), ("fsdp",))

    def shard(leaf):
        axis = next((i for i in reversed(range(leaf.ndim)) if leaf.shape[i] % 8 == 0), None)
        spec = [None if i != axis else "fsdp" for i in range(leaf.ndim)]
        return jax.device_put(leaf, jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))

    state = {"ema_params": jax.tree.map(shard, params)}
    metadata = {"format": FORMAT, "config": config.to_dict(), **bundle.provenance.to_json()}
    with ocp.CheckpointManager(tmp_path / "run" / "checkpoints") as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)
        )
        manager.save(8, args=items)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "tests.pytorch.export_memory", tmp_path / "run", out]
    done = subprocess.run(command, capture_output=True, cwd=repository, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    growth = json.loads(done.stdout.splitlines()[-1])["growth"]

    leaves = jax.tree.leaves(params)
    total, largest = sum(leaf.nbytes for leaf in leaves), max(leaf.nbytes for leaf in leaves)
    print(
        f"\n{total / 1e6:.0f} MB of weights, largest {largest / 1e6:.0f}, grew {growth / 1e6:.0f}"
    )
    assert growth < 0.8 * total
    files = sorted(out.glob("model-*.safetensors"))
    assert len(files) >= 3
    assert sum(np.prod(tensor.shape) for tensor in list_tensors(files)) * 4 == total
