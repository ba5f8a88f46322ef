"""`lidit eval scenes`: settings, where results go, and what the table calls the mean."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lidit_jax.cli import main
from lidit_jax.config.schema import SamplingConfig
from lidit_jax.evaluation import scenes
from lidit_jax.evaluation.scene_prompts import MEAN_LABEL


class Drawing:
    """Takes the place of a pipeline: draws gray, and writes down what it was asked for."""

    config = SimpleNamespace(sampling=SamplingConfig(sampler="euler", steps=32, guidance=4.0))

    def __init__(self, fingerprint):
        self.fingerprint, self.asked = fingerprint, []

    def __call__(self, prompts, **settings):
        self.asked.append(settings)
        return np.full((len(prompts), 16, 16, 3), 128, np.uint8)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """From a checkpoint's name and weights, and options, to what was asked for."""
    monkeypatch.chdir(tmp_path)

    def evaluate(checkpoint, fingerprint, *options):
        pipeline = Drawing(fingerprint)
        made = SimpleNamespace(from_checkpoint=lambda name, encoders: pipeline)
        monkeypatch.setattr(scenes, "Pipeline", made)
        command = ["eval", "scenes", f"--checkpoint={checkpoint}", "--per-task=1", *options]
        assert main(command) == 0
        return pipeline.asked

    return evaluate


def test_every_model_has_results_of_its_own(drawn, tmp_path):
    for name, fingerprint in (
        ("demo", "aaaaaaaa11"),
        ("runs/demo", "bbbbbbbb22"),
        ("runs/demo/checkpoints/400", "cccccccc33"),
        ("demo", "aaaaaaaa11"),
    ):
        drawn(name, fingerprint)
    folders = sorted(path.name for path in (tmp_path / "runs/scenes").iterdir())
    assert folders == ["demo-400-cccccccc", "demo-aaaaaaaa", "demo-bbbbbbbb"]
    record = json.loads((tmp_path / "runs/scenes/demo-bbbbbbbb/scores.json").read_text())
    assert (record["checkpoint"], record["checkpoint_sha256"]) == ("runs/demo", "bbbbbbbb22")


def test_sampler_steps_and_guidance_are_passed_on_and_written_down(drawn, tmp_path):
    asked = drawn("demo", "a" * 64, "--sampler=heun", "--steps=3", "--out=scores")
    assert asked[0] == {"seed": 0, "sampler": "heun", "steps": 3, "guidance": None}
    record = json.loads((tmp_path / "scores/scores.json").read_text())
    assert (record["sampler"], record["steps"], record["guidance"]) == ("heun", 3, 4.0)


def test_the_mean_is_called_what_it_is(drawn, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    drawn("demo", "a" * 64)
    shown = capsys.readouterr().out
    assert MEAN_LABEL in shown
    assert "size_binding (not in the mean)" in shown
    assert "size (not in the mean)" in shown
