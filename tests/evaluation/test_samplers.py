"""The table of samplers: what is drawn for it, and how it reads."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lidit_jax.commands.evaluate import run_samplers
from lidit_jax.config import SamplingConfig
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.samplers import markdown
from lidit_jax.sampling_settings import override


class FakePipeline:
    """Stands in for the pipeline: black images, and a list of what was asked."""

    fingerprint = "cafe"
    samplers = ("euler", "heun")

    def __init__(self):
        self.calls = []

    def settings(self, **changes):
        if changes["sampler"] not in self.samplers:
            raise LiditError("sampler 'ddim' does not fit")
        return override(SamplingConfig(), changes)

    def __call__(self, prompts, **settings):
        self.calls.append((len(prompts), settings["sampler"], settings["steps"], settings["seed"]))
        return np.zeros((len(prompts), 48, 48, 3), np.uint8)


@pytest.fixture
def pipeline(monkeypatch):
    import lidit_jax.evaluation.samplers

    fake = FakePipeline()
    loader = SimpleNamespace(from_checkpoint=lambda _: fake)
    monkeypatch.setattr(lidit_jax.evaluation.samplers, "Pipeline", loader)
    return fake


def options(tmp_path, **changes):
    values = {"checkpoint": "any", "out": tmp_path, "samplers": None, "steps": "4,8", "seed": 3}
    values |= {"per_task": 1, "batch_size": 5, "spacing": None, "guidance": 2.0}
    return SimpleNamespace(**(values | changes))


def test_every_sampler_draws_the_same_prompts_from_the_same_seeds(pipeline, tmp_path, capsys):
    assert run_samplers(options(tmp_path)) == 0
    report = json.loads((tmp_path / "samplers.json").read_text())
    count = report["prompts"]
    batches = [(min(5, count - first), 3 + first) for first in range(0, count, 5)]
    for sampler in pipeline.samplers:
        for steps in (4, 8):
            drawn = [(n, seed) for n, *kind, seed in pipeline.calls if kind == [sampler, steps]]
            assert drawn == [batches[0], *batches], "one batch more, which is not timed"
    rows = report["rows"]
    assert [row["evaluations"] for row in rows] == [4, 8, 7, 15]
    assert all(row["score"] == 0 and row["seconds_an_image"] > 0 for row in rows)
    assert report["settings"] == {"guidance": 2.0}
    assert capsys.readouterr().out.endswith((tmp_path / "samplers.md").read_text())


def test_the_table_has_samplers_down_and_steps_across():
    rows = [
        {"sampler": "euler", "steps": 8, "score": 0.5, "seconds_an_image": 0.25},
        {"sampler": "euler", "steps": 4, "score": 0.25, "seconds_an_image": 0.125},
        {"sampler": "heun", "steps": 4, "score": 1.0, "seconds_an_image": 0.5},
    ]
    assert markdown(rows).splitlines() == [
        "| sampler | 4 steps | 8 steps |",
        "|---|---:|---:|",
        "| `euler` | 25.0% (0.12 s) | 50.0% (0.25 s) |",
        "| `heun` | 100.0% (0.50 s) |  |",
    ]


def test_mistakes_are_found_before_anything_is_drawn(pipeline, tmp_path):
    with pytest.raises(LiditError, match="'ddim' does not fit"):
        run_samplers(options(tmp_path, samplers="euler,ddim"))
    with pytest.raises(LiditError, match="--steps: '0' is not a whole number above 0"):
        run_samplers(options(tmp_path, steps="4,0"))
    assert pipeline.calls == []
