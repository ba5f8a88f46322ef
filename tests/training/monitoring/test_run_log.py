"""What a run leaves to look at, also after it was cut off in the middle of a line."""

import json
import resource
import struct
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu.metrics import Average
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from lidit_jax.training.monitoring import run_log
from lidit_jax.training.monitoring.report import loss_ticks
from lidit_jax.training.monitoring.run_log import RunLog

pytestmark = pytest.mark.output


def log(workdir, first_step=0):
    return RunLog(workdir, total_steps=10, batch_size=4, first_step=first_step)


def load(file):
    """The events of a TensorBoard file: length, its checksum, content, its checksum."""
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def average(loss, count=1):
    """What one step reports."""
    return {"loss": Average(total=jnp.float32(loss * count), count=jnp.float32(count))}


def records(workdir):
    """What was written but the times of the starts."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "started" not in line]


def test_averages_speed_and_curve(tmp_path, capsys):
    with log(tmp_path) as run:
        for loss in (3.0, 1.0):
            run.accumulate(average(loss))
        values = run.flush(2)
        assert values["loss"] == pytest.approx(2.0)
        assert values["images_per_second"] == pytest.approx(4 / values["step_seconds"])
        run.accumulate(average(0.5))
        assert run.flush(3)["loss"] == pytest.approx(0.5), "since the last flush"
        run.scalars(3, {"validation_loss": 0.7})
    assert "step 2/10  loss 2.0000" in capsys.readouterr().out
    assert [record["step"] for record in records(tmp_path)] == [2, 3, 3]
    assert records(tmp_path)[2] == {"step": 3, "validation_loss": 0.7}
    assert Image.open(tmp_path / "loss.png").width > 300
    events = next((tmp_path / "tensorboard").iterdir())
    written = [event for event in load(events) if event.summary.value]
    tags = {value.tag: value.simple_value for event in written for value in event.summary.value}
    assert tags["validation_loss"] == pytest.approx(0.7)
    assert written[-1].step == 3


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


def test_steps_that_were_left_out_weigh_nothing(tmp_path):
    with log(tmp_path) as run:
        run.accumulate(average(2.0))
        run.accumulate(average(100.0, count=0))
        assert run.flush(2)["loss"] == pytest.approx(2.0)
        run.accumulate(average(0.0, count=0))
        assert "loss" not in run.flush(3), "nothing was learnt"


def test_the_use_of_the_devices_is_counted_and_compared_with_their_peak(tmp_path, monkeypatch):
    monkeypatch.setattr(run_log, "peak_flops", lambda device: 1e12)
    with RunLog(tmp_path, 10, batch_size=4, first_step=0, sample_flops=8e9) as run:
        with run.waiting_for_data():
            time.sleep(0.05)
        run.accumulate(average(1.0))
        values = run.flush(1)
    done = values["images_per_second"] * 8e9 / jax.device_count()
    assert values["tflops_per_second_per_device"] == pytest.approx(done / 1e12)
    assert values["model_flops_utilization"] == pytest.approx(done / 1e12)
    assert 0.05 <= values["data_wait_fraction"] * values["step_seconds"] <= values["step_seconds"]
    page = (tmp_path / "report.html").read_text()
    assert "images/s" in page
    assert "data:image/png;base64," in page


def test_the_report_shows_settings_curve_and_newest_grid(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 3, "model": {"width": 64}}')
    with log(tmp_path) as run:
        run.accumulate(average(1.5))
        run.flush(1)
        run.images(1, np.zeros((2, 16, 16, 3), np.uint8), ["a <b>", "c"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "model.width" in page
    assert ">64<" in page
    assert "1.5" in page


def test_the_report_shows_losses_by_time_and_norms_by_module(tmp_path):
    with log(tmp_path) as run:
        for step, loss in ((1, 0.75), (2, 0.5)):
            run.scalars(step, {"loss": loss, "loss_by_time/0.00-0.25": loss / 2})
        run.scalars(2, {"loss_by_time/0.75-1.00": 0.125})
        run.scalars(2, {"gradient_norm/blocks": 0.03, "update_norm/blocks": 0.0004})
    page = (tmp_path / "report.html").read_text()
    assert "<th>0.00-0.25</th><td>0.2500</td>" in page, "the newest"
    assert "<th>0.75-1.00</th><td>0.1250</td>" in page
    assert "<th>blocks</th><td>3.00e-02</td><td>4.00e-04</td>" in page


def test_the_report_shows_validation_losses_and_what_was_not_used(tmp_path):
    with log(tmp_path) as run:
        run.scalars(1, {"loss": 1.0, "validation_loss": 2.0, "validation_loss_ema": 3.0})
        run.scalars(1, {"skipped_records": 4, "compile_seconds": 5.0})
        run.scalars(2, {})
    page = (tmp_path / "report.html").read_text()
    assert "<th>validation loss</th><td>2.0000</td>" in page
    assert "<th>validation loss, averaged weights</th><td>3.0000</td>" in page
    assert "<th>records that could not be read, of process 0</th><td>4</td>" in page
    assert "<th>seconds of compiling step and validation</th><td>5.0</td>" in page
    assert "captions that were cut" not in page
    assert ", step 1</h1>" in page, "no numbers are no record"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.4, 6.0, [0.5, 1, 2, 5]),
        (0.011, 0.9, [0.02, 0.05, 0.1, 0.2, 0.5]),
        (0.52, 0.61, [0.52, 0.54, 0.56, 0.58, 0.6]),
        (3e-5, 2e-3, [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3]),
        (0.0, 1.0, []),
    ],
)
def test_losses_have_ticks_at_round_numbers_between_the_powers_of_ten(low, high, expected):
    assert loss_ticks(low, high) == expected


def test_speed_and_time_left_do_not_count_the_compiled_step(tmp_path, capsys):
    with log(tmp_path) as run:
        time.sleep(0.5)
        run.start_clock(1, average(1.0))
        run.accumulate(average(1.0))
        assert "step_seconds" not in run.flush(1)
        assert capsys.readouterr().out == "step 1/10  loss 1.0000\n"
        time.sleep(0.02)
        run.accumulate(average(1.0))
        values = run.flush(3)
        assert values["steps"] == 2
        assert 0.01 <= values["step_seconds"] < 0.2
        assert "0:00:0" in capsys.readouterr().out


def test_an_early_line_tells_the_speed_and_leaves_the_averages_alone(tmp_path, capsys):
    with log(tmp_path) as run:
        run.start_clock(1, average(3.0))
        run.accumulate(average(3.0))
        run.show(2)
        shown = capsys.readouterr().out
        assert shown.startswith("step 2/10  loss 3.0000  ")
        assert shown.endswith(" left\n")
        run.accumulate(average(1.0))
        values = run.flush(3)
    assert (values["loss"], values["steps"]) == (2.0, 2)
    assert [record["step"] for record in records(tmp_path)] == [3]


def test_the_report_shows_the_median_of_the_speed(tmp_path):
    with log(tmp_path) as run:
        for step, seconds in ((1, 0.2), (2, 0.3), (3, 9.0)):
            speed = {"step_seconds": seconds, "images_per_second": 6 / seconds}
            run.scalars(step, {"loss": 1.0} | speed)
    page = (tmp_path / "report.html").read_text()
    assert "<th>seconds a step, median</th><td>0.300</td>" in page
    assert "<th>images/s, median</th><td>20.0</td>" in page


def test_goodput_goes_on_over_restarts(tmp_path):
    for first_step in (0, 5):
        with log(tmp_path, first_step) as run:
            run.accumulate(average(0.5))
            time.sleep(0.02)
            with run.off_step_time():
                time.sleep(0.02)
            values, now = run.flush(first_step + 5), time.time()
    productive = [record["productive_seconds"] for record in records(tmp_path)]
    assert all(0.02 <= seconds < 0.04 + 0.5 for seconds in productive)
    begun = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["started"]
    share = sum(productive) / (now - begun)
    assert values["goodput"] == pytest.approx(share, rel=0.2)
    assert "goodput" in (tmp_path / "report.html").read_text()


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path, capsys):
    """No file may grow beyond 600 bytes, until somebody makes room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log(tmp_path) as run:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
            for step in range(1, 40):
                run.scalars(step, {"loss": 1.0 / step})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        run.scalars(40, {"loss": 0.1})
    assert capsys.readouterr().out.count("the log cannot be written (File too large)") == 1
    assert [record["step"] for record in records(tmp_path)] == list(range(1, 41)), "kept for later"
