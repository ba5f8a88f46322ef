"""`lidit export`: what it puts into the folder."""

from typing import ClassVar

import numpy as np
import pytest

from lidit_jax.checkpoints.opener import SavedModel, open_model
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.cli import main
from lidit_jax.config.schema import Config, TrainingConfig

ENCODER = {
    "source": "smollm2",
    "layer": -3,
    "fingerprint": {"weights": "a", "tokenizer": "b"},
    "prefix": "",
}
PROVENANCE = {
    "lidit": Provenance((ENCODER,), (5,), "pixels", (0.0,), (1.0,), step=8),
    "vae": Provenance(step=8),
}


class OneKernel:
    """Weights on disk, in the place of a checkpoint's."""

    shapes: ClassVar = {"kernel": (2, 3)}

    def read(self, path):
        return np.ones(self.shapes[path], np.float32)

    def load(self, shardings=None):
        return {"kernel": self.read("kernel")}


@pytest.mark.parametrize("task", PROVENANCE)
def test_the_folder_has_a_model_card_and_keeps_the_author_s(task, tmp_path, monkeypatch):
    config = Config(training=TrainingConfig(task=task))
    run = SavedModel(tmp_path / "run", config, PROVENANCE[task], "", None, OneKernel())
    with monkeypatch.context() as patch:
        patch.setattr("lidit_jax.checkpoints.opener.open_model", lambda *_, **__: run)
        export_twice(tmp_path / "my-model")
    assert open_model(tmp_path / "my-model").shapes == OneKernel.shapes, "and is what it was"


def export_twice(out):
    """The second time over a card that the author has written."""
    assert main(["export", "--checkpoint=any", f"--out={out}"]) == 0
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: other")
    assert "# my-model\n" in card
    assert "6 parameters, averaged (EMA) weights of step 8" in card
    (out / "README.md").write_text("the author's own")
    assert main(["export", "--checkpoint=any", f"--out={out}"]) == 0
    assert (out / "README.md").read_text() == "the author's own"


def test_weights_are_cut_into_files_of_a_size(tmp_path, monkeypatch, capsys):
    config = Config(training=TrainingConfig(task="lidit"))
    run = SavedModel(tmp_path / "run", config, PROVENANCE["lidit"], "", None, OneKernel())
    monkeypatch.setattr(OneKernel, "shapes", {"kernel": (1000, 600)})
    out = f"--out={tmp_path / 'model'}"
    with monkeypatch.context() as patch:
        patch.setattr("lidit_jax.checkpoints.opener.open_model", lambda *_, **__: run)
        assert main(["export", "--checkpoint=any", out, "--max-file-size=1MB"]) == 2
        assert "kernel alone has 1.1 MiB" in capsys.readouterr().err
        assert main(["export", "--checkpoint=any", out, "--max-file-size=2MiB"]) == 0
        assert main(["export", "--checkpoint=any", out, "--max-file-size=15"]) == 2
    assert "'15' is not" in capsys.readouterr().err
    assert open_model(tmp_path / "model").shapes == OneKernel.shapes
