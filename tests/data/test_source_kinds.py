"""The source that a configuration names; a user's own pictures train from the first day."""

import json
from pathlib import Path

import numpy as np
import pytest
from lidit_jax.data.image_source import SourceKind
from lidit_jax.data.source_kinds import SOURCES, open_image_source, source_kind
from PIL import Image

from lidit_jax.cli import main
from lidit_jax.data.scenes.source import SceneSource
from lidit_jax.errors import LiditError
from lidit_jax.sampling.pipeline import Pipeline

pytestmark = pytest.mark.output

COLORS = ["red", "green", "blue", "white", "black", "yellow", "orange", "purple"]


@pytest.fixture
def pictures(tmp_path):
    """Eight captioned pictures of several sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, color in enumerate(COLORS):
        Image.new("RGB", (40 + i, 60 - i), color).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a plain {color} picture")
    return folder


def test_scenes_train_and_validate_on_different_combinations(tiny_config):
    train, heldout = (open_image_source(tiny_config(), split) for split in ("train", "heldout"))
    assert (len(train), len(heldout)) == (64, 24)
    assert (train.split, heldout.split) == ("train", "heldout")
    assert train[0]["image"].shape == (32, 32, 3)
    assert len({train.caption(i) for i in range(64)}) <= 16, "captions are shared"


def test_a_folder_trains_on_all_and_validates_on_every_twentieth(tiny_config, tmp_path):
    for i in range(41):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02d}.png")
        (tmp_path / f"{i:02d}.txt").write_text(str(i))
    config = tiny_config("data.source=folder", f"data.path={tmp_path}")
    train, heldout = (open_image_source(config, split) for split in ("train", "heldout"))
    assert len(train) == 41
    assert [heldout.caption(i) for i in range(len(heldout))] == ["0", "20", "40"]
    record = heldout[2]
    assert (record["caption"], record["index"]) == ("40", 2)
    assert record["image"].shape == (32, 32, 3)
    assert repr(train) != repr(heldout)


def test_a_start_opens_no_picture_twice_and_a_later_one_none(
    pictures, tiny_config, tmp_path, monkeypatch, capsys
):
    """Both splits, their digests and their names included."""
    (pictures / "x.heic").touch()
    opened, original = [], Path.open

    def watched(path, *arguments, **options):
        if path.suffix == ".png":
            opened.append(path.name)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    cache = tmp_path / "cache"
    config = tiny_config("data.source=folder", f"data.path={pictures}", f"data.cache_dir={cache}")

    def start():
        opened.clear()
        sources = [open_image_source(config, split) for split in ("train", "heldout")]
        return [(repr(source), source.digests().tolist()) for source in sources]

    first = start()
    assert sorted(opened) == [f"{i}.png" for i in range(8)]
    assert capsys.readouterr().out == f"{pictures}: left out: 1 .heic (x.heic)\n"
    assert start() == first
    assert opened == []


def test_a_source_that_is_not_registered_is_refused_with_all_that_are(tiny_config, monkeypatch):
    config = tiny_config("data.source=disk")
    kinds = (
        "'scenes', 'folder', 'index', 'classes', 'webdataset', 'parquet', 'array_record', 'tfds'"
    )
    with pytest.raises(LiditError, match=rf"data\.source='disk': choose one of {kinds}, 'emoji'$"):
        source_kind(config)
    tape = SourceKind(lambda config, split: SceneSource(split, 4, 8))
    monkeypatch.setitem(SOURCES, "tape", tape)
    with pytest.raises(LiditError, match=r"choose one of 'scenes', 'folder', .*, 'tape'$"):
        source_kind(config)
    assert open_image_source(tiny_config("data.source=tape"), "train").split == "train"


def test_a_folder_must_be_named(tiny_config):
    with pytest.raises(LiditError, match=r"config\.data\.path is empty: name the folder with the"):
        open_image_source(tiny_config("data.source=folder"), "train")


def command(tiny_config, folder, tmp_path):
    """`lidit train` on a folder, for three steps of a model that compiles fast."""
    encoders = tiny_config().encoders.sources[:1]
    settings = {"data.source": "folder", "data.path": folder, "data.cache_dir": tmp_path / "cache"}
    settings |= {"encoders.sources": encoders, "model.depth": 1, "training.steps": 3}
    settings |= {
        "optimizer.warmup_steps": 1,
        "training.batch_size": 8,
        "training.eval_every": 3,
        "training.image_every": 3,
    }
    options = [f"--config.{name}={value}" for name, value in settings.items()]
    return ["train", "--config=tests/tiny_recipe.py", f"--workdir={tmp_path / 'run'}", *options]


def test_eight_pictures_train_and_their_model_draws(
    pictures, tiny_config, tmp_path, monkeypatch, repository
):
    monkeypatch.chdir(repository)
    assert main(command(tiny_config, pictures, tmp_path)) == 0
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    values = {name: value for record in records for name, value in record.items()}
    for name in ("loss", "validation_loss", "validation_loss_ema"):
        assert np.isfinite(values[name])
    image = Pipeline.from_checkpoint(tmp_path / "run")(["a plain red picture"])
    assert image.shape == (1, 32, 32, 3)


def test_pictures_in_a_bucket_are_refused(tiny_config):
    config = tiny_config("data.source=folder", "data.path=gs://bucket/pictures")
    with pytest.raises(LiditError, match="gs://bucket/pictures: this must be a local path"):
        open_image_source(config, "train")


def test_a_corrupt_picture_is_named_before_anything_is_written(
    pictures, tiny_config, tmp_path, monkeypatch, repository, capsys
):
    monkeypatch.chdir(repository)
    (pictures / "3.png").write_bytes(b"no picture")
    assert main(command(tiny_config, pictures, tmp_path)) == 2
    error = capsys.readouterr().err
    assert f"{pictures / '3.png'} is not a readable image: replace or remove it" in error
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_a_picture_that_breaks_off_is_named_and_leaves_no_run(
    pictures, tiny_config, tmp_path, monkeypatch, repository, capsys
):
    """Its header is whole, so that only decoding finds it."""
    monkeypatch.chdir(repository)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "3.png")
    content = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(content[: len(content) // 2])
    assert main(command(tiny_config, pictures, tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{pictures / '3.png'} is not a readable image" in error
    assert not (tmp_path / "run").exists()
