"""The comparison of samplers: what is drawn for it, how it goes on, and how it reads."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lidit_jax.commands.evaluate import run_samplers
from lidit_jax.config.schema import SamplingConfig
from lidit_jax.diffusion.process import RectifiedFlow
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.sampler_report import markdown, recommended
from lidit_jax.sampling.settings import override

USUAL = {"sampler": "euler", "steps": 8, "cache_interval": 1}


class FakePipeline:
    """Stands in for the pipeline: black images, and a list of what was asked."""

    fingerprint = "cafe"
    samplers = ("euler", "heun")
    process = RectifiedFlow()
    config = SimpleNamespace(data=SimpleNamespace(image_size=48))

    def __init__(self):
        self.encoded, self.drawn, self.stop_after = [], [], np.inf

    def settings(self, **changes):
        if changes.get("sampler") == "ddim":
            raise LiditError("sampler 'ddim' does not fit")
        return override(SamplingConfig(sampler="euler", steps=8), changes)

    def encode(self, prompts):
        self.encoded.append(list(prompts))
        length = 16 * len(self.encoded)
        return TextConditions(
            (np.zeros((len(prompts), length, 2)),), (np.ones((len(prompts), length), bool),)
        )

    def draw(self, requests, settings, size, *, conditions):
        if len(self.drawn) == self.stop_after:
            raise KeyboardInterrupt
        run = (settings.sampler, settings.steps, settings.cache_interval)
        seeds = [request.seed for request in requests]
        self.drawn.append((run, seeds, conditions.masks[0].shape))
        return np.zeros((len(requests), *size, 3), np.uint8)


@pytest.fixture
def pipeline(monkeypatch):
    import lidit_jax.evaluation.samplers

    fake = FakePipeline()
    loader = SimpleNamespace(from_checkpoint=lambda *_, **__: fake)
    monkeypatch.setattr(lidit_jax.evaluation.samplers, "Pipeline", loader)
    return fake


def options(tmp_path, **changes):
    values = {"checkpoint": "any", "out": tmp_path, "samplers": None, "steps": "4,8", "seed": 3}
    values |= {"per_task": 1, "batch_size": 5, "spacing": None, "guidance": 2.0}
    values |= {"cache_intervals": "1,2", "encoders": []}
    return SimpleNamespace(**(values | changes))


def stored(tmp_path):
    return json.loads((tmp_path / "samplers.json").read_text())


def runs(rows):
    return [(row["sampler"], row["steps"], row["cache_interval"]) for row in rows]


def test_every_row_draws_the_same_prompts_from_the_same_seeds(pipeline, tmp_path, capsys):
    assert run_samplers(options(tmp_path)) == 0
    report = stored(tmp_path)
    expected = [("euler", 8, 1), ("euler", 8, 2), ("euler", 4, 1), ("heun", 4, 1), ("heun", 8, 1)]
    assert runs(report["rows"]) == expected
    # 9 prompts in batches of 5, the last one filled up; the first batch once more, to compile.
    seeds = [[3, 4, 5, 6, 7], [8, 9, 10, 11, 11]]
    for run in expected:
        drawn = [seeds for of, seeds, _ in pipeline.drawn if of == run]
        assert drawn == [seeds[0], *seeds]
    assert [row["evaluations"] for row in report["rows"]] == [8, 8, 4, 7, 15]
    assert all(row["score"] == 0 and row["seconds_an_image"] > 0 for row in report["rows"])
    assert report["settings"] == {"guidance": 2.0}
    assert capsys.readouterr().out.endswith((tmp_path / "samplers.md").read_text())
    with Image.open(tmp_path / "samplers.png") as picture:
        assert picture.width > picture.height


def test_prompts_are_encoded_once_and_padded_to_one_length(pipeline, tmp_path):
    run_samplers(options(tmp_path))
    assert [len(batch) for batch in pipeline.encoded] == [5, 5]
    assert {shape for _, _, shape in pipeline.drawn} == {(5, 32)}


def test_a_comparison_that_was_stopped_goes_on(pipeline, tmp_path):
    pipeline.stop_after = 7  # in the third row
    with pytest.raises(KeyboardInterrupt):
        run_samplers(options(tmp_path))
    before = stored(tmp_path)["rows"]
    assert len(before) == 2
    pipeline.stop_after, pipeline.drawn = np.inf, []
    run_samplers(options(tmp_path))
    after = stored(tmp_path)["rows"]
    assert after[:2] == before
    assert len(after) == 5
    drawn = list(dict.fromkeys(run for run, _, _ in pipeline.drawn))
    # The usual row is drawn once more, to compare the others with.
    assert drawn == [("euler", 8, 1), ("euler", 4, 1), ("heun", 4, 1), ("heun", 8, 1)]
    pipeline.drawn = []
    run_samplers(options(tmp_path, samplers="euler"))
    assert pipeline.drawn == []
    assert stored(tmp_path)["rows"] == after


def row(sampler, steps, score, seconds, evaluations=None, interval=1, psnr=None):
    return {
        "sampler": sampler,
        "steps": steps,
        "cache_interval": interval,
        "evaluations": evaluations or steps,
        "score": score,
        "images_scored": 100,
        "seconds_an_image": seconds,
        "psnr_to_usual": psnr,
    }


ROWS = [
    row("euler", 8, 0.80, 0.25),
    row("euler", 8, 0.79, 0.125, interval=2, psnr=30.25),
    row("euler", 4, 0.25, 0.125),
    row("unipc", 4, 0.79, 0.125),
    row("heun", 4, 0.82, 0.25, evaluations=7),
]


def test_the_fewest_evaluations_as_good_as_the_best_are_recommended():
    """One standard error of 82% of 100 images is 3.8%."""
    assert recommended(ROWS)["sampler"] == "unipc"
    assert recommended([*ROWS[:3], ROWS[4]])["sampler"] == "heun"


def test_the_tables_have_samplers_down_steps_across_and_intervals_below():
    assert markdown(ROWS, USUAL).splitlines() == [
        "| sampler | 4 steps | 8 steps |",
        "|---|---:|---:|",
        "| `euler` | 25.0% (0.125 s) | 80.0% (0.250 s) |",
        "| `heun` | 82.0% (0.250 s) |  |",
        "| `unipc` | 79.0% (0.125 s) |  |",
        "",
        "Score, and seconds per image. Recommended: `unipc`, 4 steps: the fewest evaluations of "
        "the network with a score of 78.2% or more, which is one standard error below the best "
        "(100 images per row).",
        "",
        "Step caching, `euler`, 8 steps:",
        "",
        "| computed in full | score | s per image | speed-up | PSNR to interval 1 |",
        "|---|---:|---:|---:|---:|",
        "| every evaluation | 80.0% | 0.250 | 1.00 | equal |",
        "| every 2. | 79.0% | 0.125 | 2.00 | 30.2 dB |",
    ]


def test_mistakes_are_found_before_anything_is_drawn(pipeline, tmp_path):
    with pytest.raises(LiditError, match="'ddim' does not fit"):
        run_samplers(options(tmp_path, samplers="euler,ddim"))
    with pytest.raises(LiditError, match="--steps: '0' is not a whole number above 0"):
        run_samplers(options(tmp_path, steps="4,0"))
    with pytest.raises(LiditError, match="--cache-intervals: '0' is not a whole number above 0"):
        run_samplers(options(tmp_path, cache_intervals="0"))
    assert pipeline.drawn == []
    assert list(tmp_path.iterdir()) == []


def test_another_comparison_is_not_mixed_in(pipeline, tmp_path):
    run_samplers(options(tmp_path))
    with pytest.raises(LiditError, match="with another seed: name another --out, or delete it"):
        run_samplers(options(tmp_path, seed=4))
    (tmp_path / "samplers.json").write_text("{}")
    with pytest.raises(LiditError, match="is not a comparison of samplers: name another --out"):
        run_samplers(options(tmp_path))
