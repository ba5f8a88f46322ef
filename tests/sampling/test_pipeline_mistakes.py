"""What a pipeline, or `lidit sample`, says of inputs without meaning and models that break down."""

import jax
import numpy as np
import pytest

from lidit_jax import Pipeline
from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.cli import main
from lidit_jax.errors import LiditError

PROMPTS = ["a red circle", "two blue stars"]

GRAY = np.full((32, 32, 3), 128, np.uint8)
MISTAKES = {
    "no prompt": ([], {}, "no prompt: describe an image"),
    "empty prompt": (["a", " "], {}, "a prompt is empty: describe an image"),
    "5,000 tokens": (
        ["x" * 5000],
        {},
        "has 5000 tokens, the limit is 96 in this checkpoint: short",
    ),
    "size": (["a"], {"size": 30}, r"size 30x30: each side must be a multiple of 8 \(patch"),
    "long negative prompt": (
        ["a"],
        {"negative_prompt": "x" * 97},
        "the prompt 'x+…' has 97 tokens, the limit is 96 in this checkpoint: shorten it$",
    ),
    "height": (["a"], {"height": 32}, r"no sampling setting 'height': give size=\(HEIGHT, WIDTH\)"),
    "random seed": (["a"], {"seed": None}, "seed=None: give a number"),
    "guide": (
        ["a"],
        {"guide": "demo"},
        "guide='demo': must be a Pipeline of an earlier",
    ),
    "sampler": (["a"], {"sampler": "ddim"}, "sampler 'ddim' does not fit process 'flow': choose"),
    "steps": (["a"], {"steps": 0}, "0 sampling steps: choose 1 or more"),
    "scale": (["a"], {"guidance": -1.0}, "guidance -1.0: must be 0 or greater"),
    "method": (["a"], {"guidance_method": "pag"}, "'pag' does not fit.*'cfg', 'cfg_zero', 'apg'"),
    "interval": (["a"], {"guidance_low": 0.9, "guidance_high": 0.1}, "0 <= low <= high <= 1"),
    "cache": (["a"], {"cache_interval": 0}, r"cache_interval 0: must be 1 \(off\) or more"),
    "misspelt": (["a"], {"guidance_rescal": 1.0}, "'guidance_rescal': did you mean 'guidance_resc"),
    "type": (["a"], {"steps": 2.5}, "steps=2.5: must be a whole number"),
    "seeds": (["a", "b"], {"seed": [1]}, "1 values of seed for 2 prompts: give one each"),
    "seed": (["a"], {"seed": -1}, "seed -1: must be from 0 to 4294967295"),
    "mask alone": (["a"], {"mask": GRAY[..., 0] > 0}, "need an initial image: give image"),
    "mask": (["a"], {"image": GRAY, "mask": GRAY[:8, :, 0] > 0}, "resize the mask"),
    "strength": (["a"], {"image": GRAY, "strength": 0.0}, "strength 0.0: must be greater than 0"),
    "image": (["a"], {"image": GRAY / 255}, "image is float64"),
    "image size": (["a"], {"image": GRAY, "size": 64}, "image is 32x32 and size 64x64"),
    "blend": (["a"], {"blend": 0.5}, "blend 0.5 needs a second prompt: give blend_with"),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("prompts", "settings", "expected"), MISTAKES.values(), ids=MISTAKES.keys()
)
def test_mistakes_are_named(prompts, settings, expected, pipeline):
    with pytest.raises(LiditError, match=expected):
        pipeline(prompts, **settings)


def test_a_model_that_breaks_down_is_named_with_its_step(folder):
    broken = Pipeline.from_checkpoint(folder)
    broken._params["output"] = jax.tree.map(lambda leaf: leaf * np.nan, broken._params["output"])
    with pytest.raises(LiditError, match="is not finite at sampling step 0: the weights are"):
        broken(["a"])


BY_COMMAND = {
    "steps": (["--steps=0"], "argument --steps: '0' is not a whole number above 0"),
    "scale": (["--guidance=-1"], "argument --guidance: '-1' is not a number from 0 to 100"),
    "size": (
        ["--size=50x30"],
        "size 50x30: each side must be a multiple of 8 (patch x downsampling of the autoencoder); "
        "the nearest size is 48x32 (width x height)",
    ),
    "sampler": (
        ["--sampler=eulr"],
        "sampler 'eulr' does not fit process 'flow': choose one of 'euler', 'euler_ancestral', "
        "'heun', 'dpm++2m', 'dpm++2m_sde', 'unipc'",
    ),
    "cache": (["--cache-interval=0"], "argument --cache-interval: '0' is not a whole number"),
}


@pytest.mark.parametrize(("options", "expected"), BY_COMMAND.values(), ids=BY_COMMAND.keys())
def test_mistakes_get_one_line_of_the_command(options, expected, folder, tmp_path, capsys):
    out = tmp_path / "new" / "x.png"
    arguments = [f"--checkpoint={folder}", "--prompt=a", f"--out={out}", *options]
    assert main(["sample", *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"lidit: error: {expected}")
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_breaks_down_stops_the_command_with_the_step(folder, tmp_path, capsys):
    model = open_model(folder)
    params = model.load()
    # Finite weights, as a bundle must have, of which the products are not.
    params["output"] = jax.tree.map(lambda leaf: np.full_like(leaf, 1e38), params["output"])
    broken = tmp_path / "broken"
    save_bundle(broken, params, model.config, model.provenance, dtype="float32")
    for caching in ([], ["--cache-interval=2"]):
        arguments = [f"--checkpoint={broken}", "--prompt=a", f"--out={tmp_path}/x.png", *caching]
        assert main(["sample", *arguments]) == 2
        *progress, shown = capsys.readouterr().err.splitlines()
        assert "the network's prediction is not finite at sampling step 0: the weights" in shown
        assert all(line.startswith("sampling steps: ") for line in progress)
    assert not (tmp_path / "x.png").exists()
