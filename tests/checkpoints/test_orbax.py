"""Checkpoints: complete or absent, versioned, and clear about damage."""

import contextlib
import json
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.checkpoints.migrations import FORMAT
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import TrainingConfig
from lidit_jax.errors import LiditError


def state(value):
    params = {"layer": {"kernel": jnp.full((16, 8), float(value)), "bias": jnp.arange(8.0)}}
    return TrainState(
        step=jnp.int32(value),
        position=jnp.int32(value),
        key=jnp.arange(2, dtype=jnp.uint32),
        params=params,
        ema_params=jax.tree.map(lambda leaf: leaf + 100, params),
        opt_state=(jnp.zeros(3), {"count": jnp.int32(value)}),
    )


KEEP = TrainingConfig(keep_checkpoints=2)
SHAPES = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0)
)


@pytest.fixture
def workdir(tmp_path):
    """Steps 1 to 4 were saved, and two are kept."""
    with Checkpoints(tmp_path, KEEP) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, state(step), {"config": {"seed": step}})
    return tmp_path


@pytest.fixture
def reader(workdir):
    with Checkpoints(workdir) as checkpoints:
        yield checkpoints


def test_state_and_metadata_come_back_to_the_bit(reader):
    assert reader.steps() == [3, 4]
    jax.tree.map(np.testing.assert_array_equal, reader.restore(4, SHAPES), state(4))
    assert reader.metadata(3) == {"format": FORMAT, "config": {"seed": 3}}


def test_weights_are_read_without_the_rest(reader):
    for name in ("params", "ema_params"):
        weights = reader.weights(4, name).load()
        jax.tree.map(np.testing.assert_array_equal, weights, getattr(state(4), name))


def test_state_and_metadata_are_one_item(workdir):
    """Both lie in the folder that is renamed when it is complete."""
    assert {"state", "metadata"} <= {
        path.name for path in (workdir / "checkpoints" / "4").iterdir()
    }


def test_a_half_written_checkpoint_does_not_count(workdir):
    folder = workdir / "checkpoints"
    shutil.copytree(folder / "4", folder / "5.orbax-checkpoint-tmp")
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == [3, 4]
    assert (folder / "5.orbax-checkpoint-tmp").exists(), "a reader leaves it to its writer"
    with Checkpoints(workdir, KEEP) as checkpoints:
        checkpoints.save(5, state(5), {})
    assert sorted(path.name for path in folder.iterdir()) == ["4", "5"]


def test_a_saved_step_is_not_saved_again(workdir):
    with Checkpoints(workdir, KEEP) as checkpoints:
        checkpoints.save(4, state(7), {})
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.restore(4, SHAPES).step == 4


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def swap_arrays(step, other):
    """Whole and readable, but not what was saved."""
    shutil.rmtree(step / "state")
    shutil.copytree(other / "state", step / "state")


DAMAGE = {
    "arrays truncated": lambda step: largest_file(step / "state" / "d").write_bytes(b"x"),
    "state lost": lambda step: shutil.rmtree(step / "state"),
    "tree truncated": lambda step: (step / "state" / "_METADATA").write_text("{"),
    "metadata truncated": lambda step: next((step / "metadata").rglob("metadata")).write_text("{"),
    "metadata lost": lambda step: shutil.rmtree(step / "metadata"),
    "arrays of another step": lambda step: swap_arrays(step, step.with_name("3")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_with_the_way_out(damage, workdir):
    step = workdir / "checkpoints" / "4"
    damage(step)
    with Checkpoints(workdir, KEEP) as checkpoints, pytest.raises(LiditError) as refusal:
        checkpoints.restore(4, SHAPES)
    message = str(refusal.value)
    assert message.startswith(f"cannot restore checkpoint {step}: ")
    assert message.endswith("; delete that folder to continue from the previous one")
    assert "\n" not in message
    shutil.rmtree(step)
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.restore(checkpoints.steps()[-1], SHAPES).step == 3


@pytest.mark.parametrize("damage", ["arrays truncated", "arrays of another step"])
def test_weights_of_a_damaged_checkpoint_are_refused_too(damage, workdir):
    DAMAGE[damage](workdir / "checkpoints" / "4")
    with (
        Checkpoints(workdir) as checkpoints,
        pytest.raises(LiditError, match=r"cannot restore checkpoint .*; delete that folder"),
    ):
        checkpoints.weights(4, "params").load()


def test_a_newer_format_is_refused(workdir):
    file = next((workdir / "checkpoints" / "4" / "metadata").rglob("metadata"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": FORMAT + 1}))
    with Checkpoints(workdir) as checkpoints:
        with pytest.raises(LiditError, match=f"has format {FORMAT + 1}, newer than .*: upgrade"):
            checkpoints.restore(4, SHAPES)
        assert checkpoints.restore(3, SHAPES).step == 3


def test_a_checkpoint_of_another_shape_is_refused(reader):
    other = SHAPES.replace(params={"layer": {"kernel": SHAPES.params["layer"]["kernel"]}})
    with pytest.raises(LiditError, match="cannot restore checkpoint"):
        reader.restore(4, other)


def test_every_version_opens_the_first_format():
    """Written by the first version, and kept as it was."""
    with Checkpoints(Path(__file__).parent / "format_1") as checkpoints:
        assert checkpoints.metadata(4) == {"format": FORMAT, "config": {"seed": 4}}
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(4, SHAPES), state(4))
        weights = checkpoints.weights(4, "ema_params").load()
    jax.tree.map(np.testing.assert_array_equal, weights, state(4).ema_params)


def test_the_best_and_every_third_are_kept_beside_the_newest(tmp_path):
    keep = TrainingConfig(keep_checkpoints=1, keep_every=3, keep_best=True)
    losses = {1: 0.9, 2: 0.2, 3: 0.5, 4: 0.4, 5: None, 6: 0.3, 7: 0.6, 8: None}
    for steps in (range(1, 5), range(5, 9)):  # a resumed run still knows which was best
        with Checkpoints(tmp_path, keep) as checkpoints:
            for step in steps:
                loss = losses[step]
                checkpoints.save(
                    step, state(step), {}, None if loss is None else {"validation_loss_ema": loss}
                )
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 3, 6, 8]


def test_the_highest_score_may_decide_what_is_best(tmp_path):
    keep = TrainingConfig(keep_checkpoints=1, keep_best=True, best_by="scene_score")
    scores = {1: 0.2, 2: 0.6, 3: 0.4, 4: None}
    with Checkpoints(tmp_path, keep) as checkpoints:
        for step, score in scores.items():
            # Validation comes more often than scores.
            found = {"validation_loss_ema": 1 / step} | ({"scene_score": score} if score else {})
            checkpoints.save(step, state(step), {}, found)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 4]


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 20 kB, as if nothing were left."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def large(value):
    """A state whose arrays do not compress to 20 kB."""
    kernel = jax.random.normal(jax.random.key(value), (256, 128))
    return state(value).replace(params={"layer": {"kernel": kernel}})


def test_a_full_disk_is_told_and_the_run_goes_on_saving(tmp_path, capsys):
    with Checkpoints(tmp_path, KEEP) as checkpoints:
        checkpoints.save(1, large(1), {})
        checkpoints.wait()
        with full_disk():
            checkpoints.save(2, large(2), {})
            checkpoints.check(wait=True)
        told = capsys.readouterr().out
        assert told.startswith("the checkpoint of step 2 could not be written (")
        assert "; that of step 1 is intact: make room in" in told
        assert checkpoints.steps() == [1]
        checkpoints.save(3, large(3), {})
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "3"}, "no rest"
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 3):
            restored = checkpoints.weights(step, "params").load()
            jax.tree.map(np.testing.assert_array_equal, restored, large(step).params)


def test_a_full_disk_at_the_end_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, large(1), {})
    checkpoints.wait()
    with full_disk():
        checkpoints.save(2, large(2), {})
        with pytest.raises(LiditError, match=r"step 2 could not be written .* step 1 is intact"):
            checkpoints.close()


def test_an_error_of_the_run_is_not_hidden_by_one_of_its_checkpoint(tmp_path, capsys):
    def run():
        with full_disk(), Checkpoints(tmp_path, KEEP) as checkpoints:
            checkpoints.save(1, large(1), {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert "step 1 could not be written" in capsys.readouterr().out
