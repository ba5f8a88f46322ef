"""What a run leaves to look at, also after it was cut off in the middle of a line."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lidit_jax.training.run_log import RunLog


def log(workdir, first_step=0):
    return RunLog(workdir, total_steps=10, batch_size=4, first_step=first_step)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_averages_speed_and_curve(tmp_path, capsys):
    with log(tmp_path) as run:
        for loss in (3.0, 1.0):
            run.accumulate({"loss": jnp.float32(loss)})
        values = run.flush(2)
        assert values["loss"] == pytest.approx(2.0)
        assert values["images_per_second"] == pytest.approx(4 / values["step_seconds"])
        run.accumulate({"loss": jnp.float32(0.5)})
        assert run.flush(3)["loss"] == pytest.approx(0.5), "since the last flush"
        run.scalars(3, {"validation_loss": 0.7})
    assert "step 2/10  loss 2.0000" in capsys.readouterr().out
    assert [record["step"] for record in records(tmp_path)] == [2, 3, 3]
    assert records(tmp_path)[2] == {"step": 3, "validation_loss": 0.7}
    assert Image.open(tmp_path / "loss.png").width > 300
    assert list((tmp_path / "tensorboard").iterdir())


def test_images_carry_their_step_and_captions(tmp_path):
    with log(tmp_path) as run:
        run.images(7, np.zeros((3, 16, 16, 3), np.uint8), ["a", "b", "c"])
    assert Image.open(tmp_path / "images" / "step_000007.png").height > 16


def test_a_resumed_log_goes_on_after_whole_lines(tmp_path):
    with log(tmp_path) as run:
        run.scalars(1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    with log(tmp_path, first_step=1) as run:
        run.scalars(2, {"loss": 0.5})
    assert [record["loss"] for record in records(tmp_path)] == [1.0, 0.5]


def test_a_run_that_ends_before_its_first_report_leaves_no_curve(tmp_path):
    with log(tmp_path):
        pass
    assert not (tmp_path / "loss.png").exists()


def test_a_loss_that_is_not_finite_does_not_spoil_the_curve(tmp_path):
    with log(tmp_path) as run:
        run.scalars(1, {"loss": 1.0})
        run.scalars(2, {"loss": float("nan")})
    assert (tmp_path / "loss.png").exists()
