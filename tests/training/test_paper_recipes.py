"""The recipes of real sizes at a tiny one, on the data that they describe: tars, ArrayRecord."""

import dataclasses
import io
import json
import tarfile

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.checkpoints.shapes import parameter_shapes
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.cli import main
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import RefinerConfig
from lidit_jax.data.opened_data import open_data
from lidit_jax.diffusion import process as processes
from lidit_jax.sampling.settings import check_settings
from lidit_jax.training.freezing import check_frozen
from lidit_jax.training.initialization import change_notes, initialize_from_run
from lidit_jax.training.loop import train
from lidit_jax.weights.path_patterns import selected

TINY = ("data.image_size=32", "data.filters.min_width=32", "data.filters.min_height=32")
TINY += ("model.width=32", "model.depth=1", "model.heads=4", "vae.source='pixels'")
TINY += ("model.patch=8", "model.dtype=float32", "model.remat=none")
TINY += ("training.batch_size=8", "training.steps=2", "training.image_every=0")
TINY += ("encoders.dtype=float32", "encoders.max_prompt_tokens=96", "training.accumulation=1")
# The paper's own fields are tested without these.
PLACES = ("training.init_from=''",)


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """48 records in two tars; every fourth is small, has a low score, or captions of tags."""
    folder = tmp_path_factory.mktemp("tars")
    random = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for i in range(24):
                number = shard * 24 + i
                wrong = i % 4 == 3
                size = (16, 16) if wrong and i % 3 == 0 else (48, 40) if i % 2 else (40, 48)
                facts = {
                    "aesthetic": 4.0 if wrong and i % 3 == 1 else 5.5,
                    "synthetic": f"a photo of noise number {number}, described by a model",
                }
                caption = f"noise number {number}"
                if wrong and i % 3 == 2:
                    caption = facts["synthetic"] = "http://example.com/a.jpg"
                image = io.BytesIO()
                pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).save(image, "PNG")
                members = {
                    "png": image.getvalue(),
                    "txt": caption.encode(),
                    "json": json.dumps(facts).encode(),
                }
                for suffix, content in members.items():
                    info = tarfile.TarInfo(f"{number:06}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def records(tars, tmp_path_factory):
    """The same as ArrayRecord shards."""
    folder = tmp_path_factory.mktemp("records")
    assert main(["data", "convert", f"webdataset:{tars}", str(folder), "--processes=1"]) == 0
    return folder


@pytest.fixture
def config(request, tiny_encoders, tmp_path, repository):
    """The recipe at a tiny size; the parameter is its name."""

    def load(*overrides):
        places = (f"encoders.sources={tiny_encoders}", f"data.cache_dir={tmp_path / 'cache'}")
        recipe = repository / "configs" / request.param
        return load_recipe(str(recipe), [*TINY, *PLACES, *places, *overrides])

    return load


KEYS = ("key", "value")
RECIPES = ["lidit_1b.py", "lidit_10b.py", "lidit_10b.py:1024px"]


@pytest.mark.parametrize("config", RECIPES, indirect=True)
def test_its_filters_remove_what_the_paper_does(config, tars):
    data = open_data(config(f"data.path={tars}"), step=8)
    removed = " ".join(data.report)
    for words in ("min_width=32", "aesthetic>=4.7", "captions_without='url'"):
        assert words in removed
    used = sum(int(members.counts.sum()) for members in data.used)
    assert used == 36, "three of four"
    assert data.sources[0].captions.columns == ("caption", "synthetic")


@pytest.mark.parametrize("config", RECIPES[:1], indirect=True)
@pytest.mark.parametrize("kind", ["webdataset", "array_record"])
def test_it_trains(config, kind, tars, records, tmp_path):
    path = tars if kind == "webdataset" else records
    settings = (f"data.source={kind}", f"data.path={path}", "data.buckets.shapes=1")
    state = train(config(*settings), tmp_path / "run")
    assert state.step == 2


@pytest.fixture
def pixart(config, tmp_path):
    """A folder as `lidit convert from-hf pixart` leaves it: one stream of another width, without
    refiners, and random weights."""
    recipe = config("training.init_new=()")
    refiner = RefinerConfig(
        blocks=0, collaborative_blocks=0, feature_norm="none", pool="none", projection="mlp"
    )
    model = dataclasses.replace(recipe.model, refiner=refiner)
    encoders = dataclasses.replace(recipe.encoders, sources=("t5",), instruction="")
    random = np.random.default_rng(0)
    params = {
        path: random.normal(0, 0.1, shape).astype(np.float32)
        for path, shape in parameter_shapes(model, [24], 3).items()
    }
    t5 = {"source": "t5", "layer": -1, "prefix": ""}
    t5["fingerprint"] = {"weights": "0", "tokenizer": "0"}
    latents = {"latent_mean": (0.0,) * 3, "latent_std": (0.5,) * 3, "autoencoder": "pixels"}
    source = dataclasses.replace(recipe, model=model, encoders=encoders)
    folder, params = tmp_path / "pixart", flax.traverse_util.unflatten_dict(params, sep="/")
    save_bundle(folder, params, source, Provenance((t5,), (0,), **latents), dtype="float32")
    return folder, params


@pytest.mark.parametrize("config", ["lidit_1b_from_pixart.py"], indirect=True)
def test_its_first_stage_takes_pixart_and_trains_what_reads_the_new_encoders(config, pixart):
    folder, params = pixart
    stage = config(f"training.init_from={folder}")
    shapes = parameter_shapes(stage.model, [16, 40], 3)
    ones = {path: jnp.ones(shape) for path, shape in shapes.items()}
    tree = flax.traverse_util.unflatten_dict(ones, sep="/")
    zero = jnp.zeros((), jnp.int32)
    fresh = TrainState(zero, zero, jnp.zeros(2, jnp.uint32), tree, tree, ())
    state, new = initialize_from_run(fresh, stage)
    parts = {path.partition("/")[0] for path in new}
    refiners = {"collaborative_refiner", "linguistic_refiner_0", "linguistic_refiner_1"}
    assert parts == refiners
    before, after = (flax.traverse_util.flatten_dict(t, sep="/") for t in (params, state.params))
    for path in after.keys() - set(new):
        np.testing.assert_array_equal(before[path], after[path], path)
    check_frozen(stage, after)
    trained = after.keys() - selected(stage.optimizer.freeze, after) - set(new)
    names = [
        f"blocks/cross_attention/{name}/{kind}" for name in KEYS for kind in ("bias", "kernel")
    ]
    assert sorted(trained) == names
    stream = {"layer": -3, "prefix": "", "fingerprint": {}}
    assert change_notes([stream, stream], stage, new) == [], "all that meets new features is new"
    check_settings(stage.sampling, processes.from_config(stage.diffusion))
