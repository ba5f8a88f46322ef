"""`lidit export`: what it puts into the folder."""

import numpy as np
import pytest

from lidit_jax.checkpoints.bundle import load_bundle
from lidit_jax.cli import main
from lidit_jax.config.schema import Config, TrainingConfig

ENCODER = {"source": "smollm2", "layer": -3, "fingerprint": {"weights": "a", "tokenizer": "b"}}
METADATA = {
    "lidit": {"encoders": [ENCODER], "latents": {"mean": [0.0], "deviation": [1.0]}, "step": 8},
    "vae": {"step": 8},
}


@pytest.mark.parametrize("task", METADATA)
def test_the_folder_has_a_model_card_and_keeps_the_author_s(task, tmp_path, monkeypatch):
    run = {"kernel": np.ones((2, 3), np.float32)}, Config(training=TrainingConfig(task=task))
    monkeypatch.setattr(
        "lidit_jax.checkpoints.saved_model.load_workdir", lambda *_, **__: (*run, METADATA[task])
    )
    out = tmp_path / "my-model"
    assert main(["export", "--checkpoint=any", f"--out={out}"]) == 0
    assert load_bundle(out).params["kernel"].shape == (2, 3), "and is what it was"
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: other")
    assert "# my-model\n" in card
    assert "6 parameters, averaged (EMA) weights of step 8" in card
    (out / "README.md").write_text("the author's own")
    assert main(["export", "--checkpoint=any", f"--out={out}"]) == 0
    assert (out / "README.md").read_text() == "the author's own"
