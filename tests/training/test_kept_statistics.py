"""Weights keep the statistics of the latents that they were trained on, whatever a folder holds."""

import numpy as np
import pytest
from PIL import Image

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.sampling.pipeline import Pipeline
from lidit_jax.training.loop import train


def paint(folder, *colors):
    """Captioned pictures, one a color, in the place of all that were there."""
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for i, color in enumerate(colors):
        Image.new("RGB", (32, 32), color).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a plain picture")
    return folder


def test_a_step_too_small_to_see_changes_no_picture(tiny_config, trained, tmp_path):
    """Six red pictures have another mean than scenes: with theirs, the same weights would paint
    red."""
    red = paint(tmp_path / "red", *["red"] * 6)
    overrides = [f"training.init_from={trained}", "data.source=folder", f"data.path={red}"]
    overrides += ["optimizer.learning_rate=1e-12", "training.steps=1", "training.image_every=0"]
    train(tiny_config(*overrides), tmp_path / "run")
    before, after = (open_model(run).provenance for run in (trained, tmp_path / "run"))
    assert after.latent_mean == before.latent_mean
    assert after.latent_std == before.latent_std
    prompts = ["a red circle", "two blue stars"]
    painted, again = (
        Pipeline.from_checkpoint(run)(prompts, seed=3).astype(int)
        for run in (trained, tmp_path / "run")
    )
    # Weights move by 1e-12; a value that lies on the edge of two may round to the other.
    assert np.abs(painted - again).max() <= 1


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    """`run(steps)` trains on a folder of pictures; returns the workdir and the folder."""
    home = tmp_path_factory.mktemp("folder")
    pictures = paint(home / "pictures", "green", "blue", "white", "black")
    overrides = ["data.source=folder", f"data.path={pictures}", "model.depth=1"]
    overrides += ["training.image_every=0", "training.batch_size=8"]

    def start(steps):
        train(tiny_config(*overrides, f"training.steps={steps}"), home / "run")
        return home / "run", pictures

    return start


def test_a_resumed_run_keeps_them_and_tells_of_other_pictures(run, capsys):
    workdir, pictures = run(1)
    before = open_model(workdir).provenance
    assert before.data["records"] == 4
    assert "has changed" not in capsys.readouterr().out

    paint(pictures, "red", "red", "white")
    run(2)
    after = open_model(workdir).provenance
    assert after.step == 2
    assert after.latent_mean == before.latent_mean
    assert after.latent_std == before.latent_std
    assert after.data["records"] == 3
    line = (
        "the training data has changed since the checkpoint: 1 removed, 2 changed (4 records then, "
        "3 now); the run goes on with today's"
    )
    assert line in capsys.readouterr().out
