"""`lidit sample`: what is found before weights are loaded, and what it says while it works."""

import dataclasses

import pytest
from PIL import Image

from lidit_jax.cli import main
from lidit_jax.commands.sample_inputs import changes_since
from lidit_jax.sampling import png_metadata
from lidit_jax.sampling.pipeline import Pipeline
from tests.pytorch.exported import make_bundle


@pytest.fixture(scope="module")
def model(tiny_config, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("model"), tiny_config())


@pytest.fixture
def never_loaded(monkeypatch):
    def load(*_, **__):
        raise AssertionError("weights are loaded before the options are checked")

    monkeypatch.setattr(Pipeline, "from_checkpoint", load)


MISTAKES = {
    "sampler": (["--sampler=ddim"], "sampler 'ddim' does not fit process 'flow'"),
    "spacing": (["--spacing=leading"], "spacing 'leading' does not fit process 'flow'"),
    "method": (["--guidance-method=pag"], "guidance_method 'pag' does not fit process 'flow'"),
    "interval": (["--guidance-low=0.9", "--guidance-high=0.1"], "must satisfy 0 <= low <= high"),
    "size": (["--size=50x30"], "size 50x30: each side must be a multiple of 8"),
    "two sizes": (["--size=64", "--aspect=16:9"], "--size and --aspect both set the shape"),
    "picture": (["--image=none.png"], "--image=none.png is not a readable image"),
    "mask alone": (["--mask=none.png"], "--mask and --strength need an initial image"),
    "guide": (["--guide-checkpoint=none"], "no checkpoint in none"),
}


@pytest.mark.parametrize(("options", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_found_before_weights_and_encoders_are_loaded(
    options, expected, model, never_loaded, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = [f"--checkpoint={model}", "--prompt=a", "--out=new/x.png", *options]
    assert main(["sample", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("lidit: error: ")
    assert expected in shown
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_long_prompt_is_told_how_long_it_may_be_and_nothing_of_training(model, tmp_path, capsys):
    arguments = [f"--checkpoint={model}", f"--out={tmp_path}/x.png", f"--prompt={'x' * 181}"]
    assert main(["sample", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.endswith("has 181 tokens, the limit is 96 in this checkpoint: shorten it\n")


def test_it_says_what_takes_long_on_stderr_and_where_the_image_is_on_stdout(
    model, tmp_path, capsys
):
    out = tmp_path / "x.png"
    arguments = [f"--checkpoint={model}", "--prompt=a", "--steps=1", f"--out={out}"]
    assert main(["sample", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert shown.err.splitlines() == [
        "sampling steps: compiling for batches of 1 at 32x32 px",
        "sampling steps: 1/1",
    ]


def test_a_size_far_from_training_is_drawn_with_a_warning(model, tmp_path, capsys):
    out = tmp_path / "x.png"
    arguments = [f"--checkpoint={model}", "--prompt=a", "--steps=1", f"--out={out}"]
    assert main(["sample", *arguments, "--size=8x16"]) == 0
    warning, *rest = capsys.readouterr().err.splitlines()
    assert warning.startswith("lidit: warning: size 8x16 is 1/2.8 of the 32x32 of training: expect")
    assert not any("warning" in line for line in rest)
    with Image.open(out) as image:
        assert image.size == (8, 16)


def test_texts_are_cleaned_in_records_and_old_ones_that_were_not_are_told(model, tmp_path, capsys):
    first, old, again = (tmp_path / name for name in ("first.png", "old.png", "again.png"))
    arguments = [f"--checkpoint={model}", "--prompt=a\u2028star\n", "--steps=1", f"--out={first}"]
    assert main(["sample", *arguments]) == 0
    with Image.open(first) as image:
        assert image.text["prompt"] == "a star"
        png_metadata.save(image, old, image.text | {"prompt": "a  star\n"})
    assert main(["sample", f"--again={first}", f"--out={again}"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["sample", f"--again={old}", f"--out={again}"]) == 0
    assert (
        "old.png was drawn by a version that cleaned its prompt 'a  star\\n' differently"
        in capsys.readouterr().err
    )
    with Image.open(again) as image:
        assert image.text["prompt"] == "a star"


def test_again_tells_when_the_same_weights_are_computed_otherwise(model, tmp_path, capsys):
    """A run may change its type of numbers, and how its autoencoder decodes."""
    first, other, again = (tmp_path / name for name in ("first.png", "other.png", "again.png"))
    assert (
        main(["sample", f"--checkpoint={model}", "--prompt=a", "--steps=1", f"--out={first}"]) == 0
    )
    with Image.open(first) as image:
        assert image.text["model.dtype"] == "float32"
        assert "vae.tile" not in image.text, "pixels are not decoded"
        png_metadata.save(image, other, image.text | {"model.dtype": "bfloat16"})
    capsys.readouterr()
    assert main(["sample", f"--again={other}", f"--out={again}"]) == 0
    assert capsys.readouterr().err.startswith(
        f"lidit: warning: {other} was drawn with config.model.dtype=bfloat16, which is now "
        "float32: this image may differ slightly\n"
    )


def test_tiles_and_type_of_an_autoencoder_are_compared_and_old_records_say_nothing(tiny_config):
    config = tiny_config("vae.source=somewhere", "vae.tile=512")
    request = dict.fromkeys(("prompt", "negative_prompt", "blend_with"), "a")
    record = png_metadata.ImageRecord(request, {}, "", "", False, (8, 8))
    assert changes_since(record, config) == []
    before = png_metadata.computing(config) | {"vae.tile": "0", "vae.dtype": "bfloat16"}
    tile, dtype = changes_since(dataclasses.replace(record, computed=before), config)
    assert tile.startswith("with config.vae.tile=0, which is now 512:")
    assert dtype.startswith("with config.vae.dtype=bfloat16, which is now float32:")
