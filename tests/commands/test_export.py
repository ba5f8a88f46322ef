"""`lidit export`: what it puts into the folder."""

import json
from typing import ClassVar

import numpy as np
import pytest

from lidit_jax.checkpoints.opener import SavedModel, open_model
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.cli import main
from lidit_jax.config.schema import Config, TrainingConfig
from lidit_jax.weights.parameter_paths import fingerprint
from tests.evaluation.test_saved_scores import RECORD
from tests.fake_hub import receive
from tests.stores import gcs_store

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

    def load(self, shardings=None, *, partly=False):
        return {"kernel": self.read("kernel")}


@pytest.mark.parametrize("task", PROVENANCE)
def test_the_folder_has_a_model_card_and_keeps_the_author_s(task, tmp_path, monkeypatch):
    config = Config(training=TrainingConfig(task=task))
    run = SavedModel(tmp_path / "run", config, PROVENANCE[task], "", None, OneKernel())
    with monkeypatch.context() as patch:
        patch.setattr("lidit_jax.checkpoints.opener.open_model", lambda *_, **__: run)
        export_twice(tmp_path / "my-model")
    assert open_model(tmp_path / "my-model").shapes == OneKernel.shapes, "and is what it was"


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run with images of three steps, scores, and paths of its author's; step 8 is exported."""
    workdir, kernel = tmp_path / "run", {"kernel": np.ones((2, 3), np.float32)}
    for name in ("step_000004", "step_000008", "step_000008 (1)", "step_000012"):
        file = workdir / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    (workdir / "scores").mkdir()
    record = RECORD | {"checkpoint_sha256": fingerprint(kernel)}
    (workdir / "scores" / "scores.json").write_text(json.dumps(record))
    (workdir / "scores" / "hits_and_misses.png").write_bytes(b"grid")
    training = TrainingConfig(task="lidit", init_from="/home/author/first")
    folder, config = workdir / "checkpoints" / "8", Config(training=training)
    run = SavedModel(folder, config, PROVENANCE["lidit"], "", None, OneKernel())
    monkeypatch.setattr("lidit_jax.checkpoints.opener.open_model", lambda *_, **__: run)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return workdir


def export(out, *options):
    return main(["export", "--checkpoint=any", f"--out={out}", *options])


def test_the_run_s_pictures_and_scores_are_shared_with_it(workdir, tmp_path, capsys):
    out = tmp_path / "model"
    out.mkdir()
    (out / "notes.txt").write_text("of the author alone")
    with receive("hf_of_a_test") as hub:
        assert export(out, "--push-to-hub=org/other", "--private") == 0
    assert "/org/other: 5 files" in capsys.readouterr().out
    sent = hub["org/other"]
    assert sent.private
    assert sorted(sent.files) == [
        *("README.md", "config.json", "images/samples.png", "images/scenes.png"),
        "model.safetensors",
    ]
    assert sent.files["images/samples.png"] == b"step_000008", "the newest of these weights"
    assert sent.files["images/scenes.png"] == b"grid"
    card = sent.files["README.md"].decode()
    assert "![The run's prompts, drawn at step 8](images/samples.png)" in card
    assert "| single object | 2 | 4 | 50% | 15% to 85% |" in card
    assert "`hf download org/other --local-dir model`" in card
    training = json.loads(sent.files["config.json"])["config"]["training"]
    assert training["init_from"] == "first", "the author's folders stay unknown"
    assert "/home/author/first" in (out / "config.json").read_text()


def test_pictures_of_other_weights_leave_the_folder(workdir, tmp_path):
    out = tmp_path / "model"
    assert export(out) == 0
    (out / "README.md").unlink()
    (workdir / "scores" / "scores.json").unlink()
    assert export(out, "--raw") == 0, "averaged weights drew the run's images"
    assert list((out / "images").iterdir()) == []
    assert "## Pictures" not in (out / "README.md").read_text()


def test_a_kept_card_is_said_and_does_not_go_with_another_step(workdir, tmp_path, capsys):
    out = tmp_path / "model"
    out.mkdir()
    (out / "README.md").write_text("weights of step 4")
    with receive("hf_of_a_test") as hub:
        assert export(out, "--push-to-hub=org/model") == 2
        assert "does not name step 8, which" in capsys.readouterr().err
        assert list(out.iterdir()) == [out / "README.md"]
        (out / "README.md").write_text("weights of step 8")
        assert export(out, "--push-to-hub=org/model") == 0
    assert "README.md is kept: it may describe another checkpoint\n" in capsys.readouterr().out
    assert hub["org/model"].files["README.md"] == b"weights of step 8"


def test_an_upload_that_fails_costs_no_export_to_a_bucket(workdir, capsys):
    with gcs_store() as store, receive("hf_of_a_test"):
        assert export("gs://bucket/model", "--push-to-hub=others/model") == 2
        assert "model/model.safetensors" in store.names("bucket", "model/")
    assert "others/model: the hub refuses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push-to-hub=model"], "'model' is no repository: write ORG/NAME"),
        (["--private"], "--private is for --push-to-hub=ORG/NAME"),
        (["--push-to-hub=org/model"], "there is no token of huggingface.co on this machine"),
    ],
)
def test_a_push_that_cannot_be_is_refused_before_anything_is_read(
    options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(["export", "--checkpoint=any", f"--out={tmp_path / 'out'}", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
