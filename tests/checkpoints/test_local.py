"""Local checkpoints of one process; `test_two_processes.py` has those of two slices."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lidit_jax.checkpoints.local import LocalCheckpoints, _to_all
from lidit_jax.checkpoints.migrations import FORMAT
from lidit_jax.config.schema import MeshConfig, TrainingConfig
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import make_mesh
from tests.checkpoints.test_orbax import SHAPES, state


@pytest.fixture
def opened(tmp_path):
    """`opened("workdir", fsdp=2)`: the local checkpoints of a workdir on a mesh."""

    def open_(workdir: str, **mesh: int) -> LocalCheckpoints:
        keep = TrainingConfig(local_checkpoints=str(tmp_path / "local"))
        return LocalCheckpoints(tmp_path / workdir, keep, make_mesh(MeshConfig(**mesh)))

    return open_


@pytest.fixture
def saved(opened):
    """Steps 1 to 4 of a workdir were saved, and the last are kept."""
    with opened("first") as local:
        for step in range(1, 5):
            local.save(step, state(step), {"config": {"seed": step}})


def test_state_and_metadata_come_back_to_the_bit(saved, opened):
    with opened("first") as local:
        assert local.steps() == [3, 4]
        jax.tree.map(np.testing.assert_array_equal, local.restore(4, SHAPES), state(4))
        assert local.metadata(3) == {"format": FORMAT, "config": {"seed": 3}}


def test_they_are_of_one_workdir_and_one_mesh(saved, opened, tmp_path):
    for other in (opened("second"), opened("first", fsdp=2)):
        with other as local:
            assert local.steps() == []
    shutil.rmtree(tmp_path / "first")
    with opened("first") as local:
        assert local.steps() == []


def test_steps_after_the_one_gone_on_from_are_replaced(saved, opened):
    with opened("first") as local:
        local.save(3, state(7), {})
    with opened("first") as local:
        assert local.steps() == [3]
        assert int(local.restore(3, SHAPES).step) == 7


def test_damage_is_found(saved, opened):
    with opened("first") as local:
        for file in (local.folder / "4" / "state").rglob("d/*"):
            file.write_bytes(b"\0" * file.stat().st_size)
        with pytest.raises(LiditError, match=r"cannot restore checkpoint .*4.*; delete .*local"):
            local.restore(4, SHAPES)


def test_a_lost_disk_ends_only_the_local_saves(opened, capsys):
    with opened("first") as local:
        shutil.rmtree(local.folder)
        local.folder.write_text("no folder")
        for step in (1, 2, 3):
            local.save(step, state(step), {})
    told = capsys.readouterr().out
    assert told.count("local checkpoints end: process 0 cannot write to ") == 1


@pytest.mark.parametrize("values", [[-0.0, 1.5, np.nan, 0.0], [True, False, True, False]])
def test_what_one_slice_has_is_sent_to_all_to_the_bit(values):
    mesh = make_mesh(MeshConfig(replica=2, fsdp=4, data=1))
    second = Mesh(mesh.devices[1:], mesh.axis_names, axis_types=mesh.axis_types)
    expected, spec = np.asarray(jnp.array(values)), PartitionSpec("fsdp")
    mine = jax.device_put(expected, NamedSharding(second, spec))
    target = jax.ShapeDtypeStruct(mine.shape, mine.dtype, sharding=NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
        everywhere = _to_all(mine, target)
    assert everywhere.sharding == target.sharding
    assert len(everywhere.addressable_shards) == 8
    assert np.asarray(everywhere).tobytes() == expected.tobytes()
