"""Recipes and configurations: what loads, what is refused, and with which words."""

import json
from pathlib import Path

import pytest

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.config.checks import check, check_size_embedding
from lidit_jax.config.load import default_config, find_recipe, freeze, load_recipe
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.training.optimizers import schedule_warnings

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = str(Path(__file__).parents[1] / "tiny_recipe.py")


def refuse(*overrides: str) -> str:
    """What a user reads who overrides the tiny recipe so."""
    with pytest.raises(LiditError) as refusal:
        load_recipe(TINY, overrides)
    message = str(refusal.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("recipe", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_json(recipe):
    config = load_recipe(str(recipe))
    assert Config.from_dict(json.loads(config.to_json())) == config
    assert hash(config) == hash(load_recipe(recipe.stem))


def test_a_tuple_of_texts_is_shown_where_it_was_empty():
    with pytest.raises(LiditError, match=r"""write --config\.training\.prompts="\('a cat',\)\"$"""):
        load_recipe("demo", ["training.prompts=a cat"])


def test_texts_for_the_encoders_are_cleaned_as_prompts_are():
    texts = {"instruction": "Draw\x00 a \u2028picture:\n", "system_prompt": "\ufeffcafe\u0301\t"}
    recipe = default_config()
    recipe.encoders.update(texts)
    encoders = freeze(recipe).encoders
    assert (encoders.instruction, encoders.system_prompt) == ("Draw a picture:", "caf\xe9")
    # What a checkpoint was trained with stays as it is.
    stored = check(Config.from_dict(recipe.to_dict())).encoders
    assert stored.instruction == texts["instruction"]


@pytest.mark.parametrize("field", ["instruction", "system_prompt"])
def test_half_a_character_is_refused_by_the_name_of_its_field(field):
    recipe = default_config()
    recipe.encoders[field] = "Draw \udc80:"
    with pytest.raises(LiditError, match=rf"config\.encoders\.{field}: .* half of a character"):
        freeze(recipe)


@pytest.mark.parametrize(("recipe", "source"), [("finetune", "folder"), ("emoji", "emoji")])
def test_fine_tuning_starts_from_the_demo_and_its_network(recipe, source):
    ours, demo = load_recipe(recipe, ["data.path=my-images"]), open_model("demo").config
    assert (ours.training.init_from, ours.data.source) == ("demo", source)
    for group in ("encoders", "model", "vae", "diffusion", "sampling"):
        assert getattr(ours, group) == getattr(demo, group), group
    assert schedule_warnings(ours, resumed=False) == []
    # A run of minutes is seen to learn: pictures, losses and a checkpoint well before its end.
    training = ours.training
    often = (training.image_every, training.eval_every, training.checkpoint_every)
    assert max(often) <= training.steps / 3


def test_overrides_take_the_type_of_their_field():
    config = load_recipe(
        TINY,
        [
            "optimizer.learning_rate=1",
            "model.remat=full",
            "model.refiner.gate=False",
            "encoders.sources=['a', 'b']",
            "encoders.layers=(-2, -1)",
            "data.path=2024_01",
            "data.cache_dir=~/a b=c",
            "training.steps=2e5",
            "data.train_records=60k",
        ],
    )
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.model.remat == "full"
    assert config.model.refiner.gate is False
    assert config.encoders.sources == ("a", "b")
    assert config.encoders.layers == (-2, -1)
    assert config.data.path == "2024_01", "text stays text, even where Python reads a number"
    assert config.data.cache_dir == "~/a b=c"
    assert (config.training.steps, config.data.train_records) == (200_000, 60_000)


def test_an_encoder_has_one_layer_several_or_all():
    for text in ("(-3, (-3, -9), 'all')", "-3, [-3, -9], 'all'"):
        changes = ["encoders.sources=('a', 'b', 'c')", f"encoders.layers={text}"]
        config = load_recipe(TINY, [*changes, "model.refiner.layer_mix=learned_average"])
        assert config.encoders.layers == (-3, (-3, -9), "all")
        assert Config.from_dict(json.loads(config.to_json())) == config


MISTAKES = {
    "training.steps=2.5": "config.training.steps=2.5 is float, must be int",
    "model.widht=8": "config.model has no field 'widht': did you mean 'width'?",
    "modle.width=8": "config has no field 'modle': did you mean 'model'?",
    "model.zzz=8": "config.model has no field 'zzz': it has 'attention', ",
    "model.width.x=8": "config.model.width has no field 'x'",
    "model=8": "config.model is a group of fields: set one of ",
    "seed": "--config.seed: write --config.seed=VALUE",
    "model.width=wide": "config.model.width='wide' is str, must be int (now ",
    "model.width=1.5": "config.model.width=1.5 is float, must be int",
    "model.qk_norm=1": "config.model.qk_norm=1 is int, must be bool",
    "encoders.sources=minilm": "config.encoders.sources='minilm' is str, must be tuple (now "
    """('smollm2', 'minilm')): write --config.encoders.sources="('minilm',)\"""",
    "encoders.layers=-3": "config.encoders.layers=-3 is int, must be tuple (now ())",
    "encoders.layers=('a', 'b')": "config.encoders.layers=('a', 'b') must be a tuple of int",
    "encoders.layers=(-1,)": "config.encoders.layers has 1 entries for 2 encoders",
    "encoders.layers=all": "config.encoders.layers='all' is str, must be tuple (now ()): "
    """write --config.encoders.layers="('all',)\"""",
    "encoders.layers=('all', 'last')": "config.encoders.layers=('all', 'last') must be a tuple of "
    "int or tuples of int or 'all'",
    "encoders.layers=(-1, (-3, 'all'))": "config.encoders.layers=(-1, (-3, 'all')) must be a tuple",
    "encoders.layers=(-1, (-3, -3))": "config.encoders.layers=(-1, (-3, -3)): name each layer of ",
    "encoders.layers=(-1, ())": "config.encoders.layers=(-1, ()): name each layer of an encoder ",
    "model.refiner.layer_mix=average": "config.model.refiner.layer_mix='average' combines several "
    "layers of an encoder, but config.encoders.layers=() has one for each: name more, such as "
    "((-3, -9), (-3, -9))",
    "encoders.sources=()": "config.encoders.sources is empty: name at least one",
    "model.position=left": "config.model.position='left': choose one of 'conv', 'rope', ",
    "model.attention=fast": "config.model.attention='fast': choose one of 'auto', 'reference', ",
    "training.task=paint": "config.training.task='paint': choose one of 'lidit', 'vae'",
    "model.depth=0": "config.model.depth=0: must be greater than 0",
    "optimizer.learning_rate=1e999": "config.optimizer.learning_rate=inf: must be greater than 0, ",
    "optimizer.warmup_steps=-1": "config.optimizer.warmup_steps=-1: must be 0 or greater",
    "optimizer.clip_norm=0": "config.optimizer.clip_norm=0.0: must be greater than 0",
    "optimizer.beta2=1": "config.optimizer.beta2=1.0: must be at least 0 and less than 1",
    "training.ema_decay=1": "config.training.ema_decay=1.0: must be at least 0 and less than 1",
    "training.prompts=a cat": "config.training.prompts='a cat' is str, must be tuple (now "
    """('a red circle', 'two blue stars')): write --config.training.prompts="('a cat',)\"""",
    "diffusion.caption_dropout=1.1": "config.diffusion.caption_dropout=1.1: must be from 0 to 1",
    "diffusion.caption_dropout=-0.1": "config.diffusion.caption_dropout=-0.1: must be from 0 to 1",
    "seed=-1": "config.seed=-1: must be from 0 to 4294967295",
    "seed=4294967296": "config.seed=4294967296: must be from 0 to 4294967295",
    "model.heads=7": "config.model.heads=7 does not divide config.model.width=32: choose a divisor",
    "model.heads=16": "config.model.position='conv+rope' needs a multiple of 4 channels per head",
    "model.sincos_extent=16": "config.model.sincos_extent=16.0 acts on position 'sincos', not on ",
    "model.sincos_order=column_first": "config.model.sincos_order='column_first' acts on position ",
    "model.size_embedding=8": "config.model.size_embedding=8 needs a multiple of 3 ",
    "data.workers=-1": "config.data.workers=-1: must be 0 or greater",
    "data.weights=(1, 2)": "config.data.weights=(1.0, 2.0): give each of the 1 sources",
    "data.weights=(0,)": "config.data.weights=(0.0,): give each of the 1 sources, that of config.",
    "data.mixture=('',)": "config.data.mixture[0] is empty: name a source as FORMAT:PATH",
    "data.captions.rates=(1, 2)": "config.data.captions.rates=(1.0, 2.0): give one for each of ",
    "data.captions.columns=text": "config.data.captions.columns='text' is str, must be tuple (now "
    """()): write --config.data.captions.columns="('text',)\"""",
    "data.augmentation.flip=0.5": "config.data.augmentation.flip=0.5: cached latents hold each ",
    "data.augmentation.random_crop=true": "config.data.augmentation.random_crop=True: cached ",
    "data.buckets.shapes=11": "config.data.buckets.shapes=11: must be from 1 to 10",
    "data.caption_column=text": "config.data.caption_column is now config.data.captions.columns: ",
    "data.image_size=50": "config.data.image_size=50 must be a multiple of config.model.patch=8",
}


@pytest.mark.parametrize(("override", "expected"), MISTAKES.items(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_remedy(override, expected):
    assert refuse(override).startswith(expected)


def test_fields_for_pixart_must_agree_with_the_others():
    message = refuse("model.refiner.pool=none", "model.refiner.pool_raw=true")
    assert message.startswith("config.model.refiner.pool_raw=True: config.model.refiner.pool='none")
    message = refuse("model.width=48", "model.size_embedding=8")
    assert "with config.vae.source='pixels' a latent pixel spans 1" in message
    fields = load_recipe(TINY, ("model.width=48", "model.size_embedding=1"))
    check_size_embedding(fields, downsample=1)
    with pytest.raises(LiditError, match=r"size_embedding=1: .* spans 8; set it to that, or to 0"):
        check_size_embedding(fields, downsample=8)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["vae.patch=3"], "config.vae.downsample=8 must be config.vae.patch=3 times 1, 2, 4, 8"),
        (["vae.downsample=24"], "config.vae.downsample=24 must be config.vae.patch=4 times"),
        (["data.image_size=60"], "config.data.image_size=60 must be a multiple of config.vae."),
        (["data.latents=online"], "config.data.latents='online': an autoencoder is trained on"),
    ],
)
def test_an_autoencoder_must_fit_its_images(overrides, expected):
    with pytest.raises(LiditError, match=expected):
        load_recipe("demo_vae", overrides)


@pytest.mark.parametrize(
    ("override", "expected"),
    {
        "vae.downsample=4": r"config.vae.downsample must be 8, not 4",
        "vae.multipliers=(1, 2)": r"config.vae.downsample must be 2, not 8",
        "vae.multipliers=()": r"config.vae.downsample must be 1, not 8",
        "vae.norm_groups=48": r"config.vae.norm_groups=48 must divide config.vae.width=128 times",
        "vae.multipliers=(1, 0, 1, 1)": r"must divide config.vae.width=128 times each of",
        "vae.reconstruction=l3": r"config.vae.reconstruction='l3': choose one of 'l1', 'l2'",
    }.items(),
)
def test_the_stages_of_the_large_autoencoder_must_fit(override, expected):
    with pytest.raises(LiditError, match=expected):
        load_recipe("vae_16ch", [override])


BROKEN = {
    "unknown field": (
        "c.model.widht = 8",
        "line 4: there is no field 'widht': did you mean 'width'",
    ),
    "wrong type": ("c.model.width = 'wide'", "line 4: TypeError: Could not override field 'width'"),
    "bug": ("nothing_here()", "line 4: NameError: name 'nothing_here' is not defined"),
    "syntax": ("c.model.width = = 8", "line 4: SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize(("line", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_recipe_is_named_with_its_line(line, expected, tmp_path):
    recipe = tmp_path / "mine.py"
    start = "from lidit_jax.config.load import default_config\ndef get_config():\n"
    recipe.write_text(f"{start}    c = default_config()\n    {line}\n    return c\n")
    with pytest.raises(LiditError) as refusal:
        load_recipe(str(recipe))
    assert str(refusal.value).startswith(f"recipe {recipe}, {expected}")


@pytest.mark.parametrize("content", ["x = 1\n", "def get_config():\n    return {}\n"])
def test_a_file_that_is_no_recipe_is_refused(content, tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text(content)
    with pytest.raises(LiditError, match=r"has no get_config\(\) that returns a config: see "):
        load_recipe(str(recipe))
    text = tmp_path / "notes.txt"
    text.write_text(content)
    with pytest.raises(LiditError, match=r"notes.txt is not Python: see configs/demo.py"):
        load_recipe(str(text))


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(LiditError, match=r"no recipe 'dmeo': give a file, or one of .*'demo'"):
        load_recipe("dmeo")
    assert find_recipe("configs/demo.py").name == find_recipe("demo").name == "demo.py"


def test_the_defaults_are_the_papers_and_frozen():
    config = freeze(default_config())
    assert config == Config()
    assert (config.model.width, config.model.depth, config.model.heads) == (1152, 28, 16)
    with pytest.raises(AttributeError):
        config.seed = 1
