"""One model over several devices: split straight from its files, drawing the same images."""

import jax
import numpy as np
import pytest
from PIL import Image

from lidit_jax import Pipeline
from lidit_jax.cli import main
from lidit_jax.config.schema import MeshConfig
from lidit_jax.errors import LiditError
from lidit_jax.io.progress import Progress
from lidit_jax.sampling import guided_sampler
from tests.pytorch.exported import make_bundle

PROMPTS = ["a red circle", "two blue stars", "a green cross"]


@pytest.fixture(scope="module")
def bundle(tiny_config, tmp_path_factory):
    layers = ("encoders.layers=((-1, 1), -1)", "model.refiner.layer_mix=learned_average")
    return make_bundle(tmp_path_factory.mktemp("bundle"), tiny_config(*layers))


@pytest.fixture(scope="module")
def alone(bundle):
    return Pipeline.from_checkpoint(bundle)(PROMPTS, seed=3)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"tensor": 2, "fsdp": 2}, {"tensor": 4, "context": 2}],
    ids=["data=8", "tensor=2,fsdp=2", "tensor=4,context=2"],
)
def test_images_do_not_depend_on_the_mesh(sizes, bundle, alone):
    """The noise is bit-equal (`tests/diffusion`); sums in another order change images little."""
    split = Pipeline.from_checkpoint(bundle, mesh=MeshConfig(**sizes))
    together = split(PROMPTS, seed=3)
    assert together.shape == alone.shape, "three images are no equal share for each device"
    assert np.abs(together.astype(int) - alone).max() <= 2


def test_steps_in_parts_are_one_program_on_a_mesh_too(bundle, monkeypatch):
    """Parts hand on what they have drawn as they got it, or each would compile anew."""
    monkeypatch.setattr(guided_sampler, "_REPORT_SECONDS", 0.0)  # a part is one step
    split = Pipeline.from_checkpoint(bundle, mesh=MeshConfig(tensor=2, fsdp=2))
    split(PROMPTS[:1], seed=3, progress=Progress())
    assert split._sampler._evaluate._cache_size() == 1


def test_no_device_holds_all_weights(bundle, trained):
    for model in (bundle, trained):
        split = Pipeline.from_checkpoint(model, mesh=MeshConfig(data=1, tensor=4, fsdp=2))
        leaves = jax.tree.leaves(split._params)
        held = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
        assert held < 0.25 * sum(leaf.size for leaf in leaves)
        whole = Pipeline.from_checkpoint(model)
        assert split.fingerprint == whole.fingerprint


def test_the_command_line_splits_too(bundle, alone, tmp_path):
    arguments = ["sample", f"--checkpoint={bundle}", f"--out={tmp_path}/x.png", "--tensor=4"]
    assert main([*arguments, "--fsdp=2", f"--prompt={PROMPTS[0]}", "--seed=3"]) == 0
    image = np.asarray(Image.open(tmp_path / "x.png"))
    assert np.abs(image.astype(int) - alone[0]).max() <= 2


def test_options_that_do_not_divide_the_devices_are_named(bundle, tmp_path, capsys):
    arguments = ["sample", f"--checkpoint={bundle}", f"--out={tmp_path}/x.png", "--prompt=a star"]
    assert main([*arguments, "--tensor=3", "--fsdp=2"]) == 2
    assert "--tensor=3 --fsdp=2: the product must divide the 8 devices" in capsys.readouterr().err


def test_a_mesh_that_does_not_divide_the_model_is_refused(bundle):
    with pytest.raises(LiditError, match=r"mesh\.tensor=8 does not divide config\.model\.heads"):
        Pipeline.from_checkpoint(bundle, mesh=MeshConfig(tensor=8))
