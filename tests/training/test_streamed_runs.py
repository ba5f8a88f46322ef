"""A user's own pictures, of several shapes: `lidit train` from a folder to a model that draws."""

import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from lidit_jax.cli import main
from lidit_jax.sampling.pipeline import Pipeline
from lidit_jax.training.loop import train
from lidit_jax.training.preparation import prepare
from tests.training.test_resume import losses

pytestmark = pytest.mark.output

COLORS = ["red", "green", "blue", "white", "black", "yellow", "orange", "purple"]
SMALL = ("data.source=folder", "data.image_size=64", "model.depth=1", "training.batch_size=8")
SMALL += ("training.image_every=0", "training.steps=6", "training.eval_every=6")
SMALL += ("optimizer.warmup_steps=0",)


def paint(folder, count):
    """Captioned pictures, tall and wide in turn."""
    folder.mkdir()
    for i in range(count):
        color = COLORS[i % len(COLORS)]
        size = (72, 56) if i % 2 else (54, 70)
        Image.new("RGB", size, color).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"a plain {color} picture, number {i}")
    return folder


@pytest.fixture(scope="module")
def configured(tiny_config, tmp_path_factory):
    """`configured(...)`: training on 40 pictures, one of which breaks off."""
    home = tmp_path_factory.mktemp("home")
    pictures = paint(home / "pictures", 40)
    noise = np.random.default_rng(0).integers(0, 256, (56, 72, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "07.png")
    content = (pictures / "07.png").read_bytes()
    (pictures / "07.png").write_bytes(content[: len(content) // 2])
    settings = (f"data.path={pictures}", f"data.cache_dir={home / 'cache'}")
    encoders = tiny_config().encoders.sources[:1]
    settings += ("data.reading.skipped_fraction=0.1", f"encoders.sources={encoders}")
    return lambda *more: tiny_config(*SMALL, *settings, *more)


@pytest.fixture(scope="module")
def whole(configured, tmp_path_factory):
    """The workdir of a run that nothing stopped, and its last state."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(configured(), workdir)


def test_two_shapes_train_and_go_on_to_the_bit(configured, whole, tmp_path, terminated, capsys):
    with terminated(3):
        assert train(configured(), tmp_path).step == 3
    shown = capsys.readouterr().out
    for size in ("56x72", "72x56"):
        assert f"compiled the step for {size} px" in shown
    state = train(configured(), tmp_path)
    workdir, expected = whole
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert losses(tmp_path) == losses(workdir)
    assert losses(tmp_path, "validation_loss")[6] == losses(workdir, "validation_loss")[6]


def test_online_losses_are_those_of_the_disk(configured, whole, tmp_path):
    settings = ("data.latents=online", "data.text_features=online", "data.encode_steps=2")
    train(configured(*settings), tmp_path)
    assert losses(tmp_path) == pytest.approx(losses(whole[0]), rel=1e-5)
    for name in ("validation_loss", "validation_loss_ema"):
        expected = losses(whole[0], name)[6]
        assert losses(tmp_path, name)[6] == pytest.approx(expected, rel=1e-5)
    lines = (tmp_path / "data" / "skipped_records_0.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["07.png"]
    assert losses(tmp_path, "skipped_records")[6] == 1


def test_held_out_records_never_train(configured, tmp_path):
    data = prepare(configured()).data
    held_out = {record for batch in data.validation(8, (0, 1)) for record in batch.records.tolist()}
    trained = {
        record
        for batch in itertools.islice(data.batches(0, tmp_path), 40)
        for record in batch.records.tolist()
    }
    assert len(held_out) == 2, "at most one in twenty"
    assert not held_out & trained
    assert len(held_out | trained) == 39, "all but the one that breaks off"


def test_its_model_draws(whole):
    image = Pipeline.from_checkpoint(whole[0])(["a plain red picture"])
    assert image.shape == (1, 64, 64, 3)


@pytest.fixture
def command(tiny_config, tmp_path, monkeypatch, repository):
    """`lidit train` on eight pictures, whose folder is `tmp_path / "pictures"`."""
    monkeypatch.chdir(repository)
    pictures = paint(tmp_path / "pictures", 8)
    settings = {"data.path": pictures, "data.cache_dir": tmp_path / "cache"}
    settings["encoders.sources"] = tiny_config().encoders.sources[:1]
    options = [f"--config.{name}={value}" for name, value in settings.items()]
    options += [f"--config.{setting}" for setting in SMALL]
    return ["train", "--config=tests/tiny_recipe.py", f"--workdir={tmp_path / 'run'}", *options]


def test_eight_pictures_are_enough(command, tmp_path, capsys):
    assert main([*command, "--config.training.steps=2"]) == 0
    assert "are merged" in capsys.readouterr().out, "neither shape fills a batch"
    assert np.isfinite(losses(tmp_path / "run", "validation_loss_ema")[2])


def test_a_picture_that_is_none_is_told_and_left_out(command, tmp_path, capsys):
    (tmp_path / "pictures" / "03.png").write_bytes(b"no picture")
    assert main([*command, "--config.training.steps=1"]) == 0
    assert "7 of 8 records are used; removed: 1 by problem" in capsys.readouterr().out


def test_a_picture_that_breaks_off_is_named_and_leaves_no_run(command, tmp_path, capsys):
    """Its header is whole, so that only decoding finds it; one of eight is more than 1%."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = tmp_path / "pictures" / "03.png"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "1 of 8 records cannot be read, more than config.data.reading.skipped_fraction" in error
    assert "03.png" in error
    assert not (tmp_path / "run").exists()
