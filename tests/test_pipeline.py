"""From a recipe to pictures and to a folder to share: the whole way, in one place."""

import numpy as np
import pytest

from lidit_jax import Pipeline
from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.training.loop import train

PROMPTS = ["a red circle", "two blue stars"]


def test_train_then_sample_then_export_then_sample_again(tiny_config, tmp_path):
    # Train for 8 steps: `lidit train --config=… --workdir=run`.
    run = tmp_path / "run"
    state = train(tiny_config(), run)
    assert state.step == 8
    kept = {path.name for path in run.iterdir()}
    assert kept == {
        "checkpoints",
        "config.json",
        "images",
        "loss.png",
        "metrics.jsonl",
        "parameters.txt",
        "tensorboard",
    }

    # Draw with the averaged weights of the newest checkpoint.
    pipeline = Pipeline.from_checkpoint(run)
    images = pipeline(PROMPTS, seed=3)
    assert images.shape == (2, 32, 32, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(pipeline(PROMPTS, seed=3), images)

    # Image i comes from seed + i, so it can be drawn again on its own, up to rounding.
    alone = pipeline(PROMPTS[1:], seed=4)
    np.testing.assert_allclose(alone[0].astype(int), images[1].astype(int), atol=1)

    # Prompt, seed, weights and settings all matter.
    for other in (
        pipeline(["a cross", "a cross"], seed=3),
        pipeline(PROMPTS, seed=30),
        pipeline(PROMPTS, seed=3, guidance=1.0),
        pipeline(PROMPTS, seed=3, steps=2),
        Pipeline.from_checkpoint(run, raw=True)(PROMPTS, seed=3),
    ):
        assert not np.array_equal(other, images)

    # Export to a small folder: it draws the same images, up to its half precision.
    folder = tmp_path / "my-model"
    assert main(["export", f"--checkpoint={run}", f"--out={folder}"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    shared = Pipeline.from_checkpoint(folder)(PROMPTS, seed=3)
    np.testing.assert_allclose(shared.astype(int), images.astype(int), atol=2)


@pytest.fixture(scope="module")
def pipeline(trained):
    return Pipeline.from_checkpoint(trained)


def test_many_prompts_are_drawn_in_batches_of_one_size(pipeline):
    prompts = [f"{i} stars" for i in range(18)]
    images = pipeline(prompts, steps=1)
    assert images.shape == (18, 32, 32, 3)
    np.testing.assert_allclose(
        images[16:].astype(int), pipeline(prompts[16:], steps=1, seed=16).astype(int), atol=1
    )


MISTAKES = {
    "no prompt": ([], {}, "no prompt: say what you want to see"),
    "empty prompt": (["a", " "], {}, "a prompt is empty: say what you want to see"),
    "5,000 tokens": (["x" * 5000], {}, r"has 5000 tokens, the limit is 96: shorten it or raise "),
    "size": (["a"], {"size": 30}, r"size 30x30: each side must be a multiple of 8 \(patch"),
    "sampler": (["a"], {"sampler": "ddim"}, "sampler 'ddim' does not fit process 'flow': choose"),
}


@pytest.mark.parametrize(
    ("prompts", "settings", "expected"), MISTAKES.values(), ids=MISTAKES.keys()
)
def test_mistakes_are_named(prompts, settings, expected, pipeline):
    with pytest.raises(LiditError, match=expected):
        pipeline(prompts, **settings)


def test_another_size_than_in_training(pipeline):
    assert pipeline(["a"], size=(16, 40), steps=1).shape == (1, 16, 40, 3)


def test_other_encoders_than_in_training_are_refused(trained, tiny_encoders, tmp_path, monkeypatch):
    """The same folder name with other weights in it."""
    from lidit_jax.encoders import text_encoder
    from tests.tiny_encoders import save_encoder

    other = save_encoder(tmp_path / "other", "llama", seed=1)
    locate = text_encoder.locate
    swapped = {tiny_encoders[0]: str(other)}
    monkeypatch.setattr(text_encoder, "locate", lambda name: locate(swapped.get(name, name)))
    with pytest.raises(LiditError, match="is not the one of this checkpoint: its fingerprint is"):
        Pipeline.from_checkpoint(trained)
