"""`lidit cache`: what training would encode before its first step, and nothing twice."""

from pathlib import Path

import pytest

from lidit_jax.cli import main
from tests.data.cache.stand_ins import files

pytestmark = pytest.mark.output
RECIPE = Path(__file__).parents[1] / "tiny_recipe.py"


@pytest.fixture
def cache(compiled_once, tiny_encoders, tmp_path):
    """`cache("data.latents=online")`: the exit status of `lidit cache` on 40 scenes."""

    def run(*overrides):
        line = ["cache", f"--config={RECIPE}", f"--config.encoders.sources={tiny_encoders}"]
        settings = {
            "data.cache_dir": tmp_path / "cache",
            "data.train_records": 32,
            "data.validation_records": 8,
        }
        line += [f"--config.{name}={value}" for name, value in settings.items()]
        return main([*line, *(f"--config.{override}" for override in overrides)])

    return run


def test_both_caches_are_made_once(cache, tmp_path, capsys):
    assert cache() == 0
    shown = capsys.readouterr().out
    for part in (
        "32 records to train on, 8 for the validation loss",
        "latents: 40 entries, 0.2 MB, 6,145 bytes each",
        "text features: 24 entries",
        "s per entry, by all processes together",
        f"latents are in {tmp_path}/cache/latents-",
        f"text features are in {tmp_path}/cache/text-",
    ):
        assert part in shown
    kept = files(tmp_path / "cache")
    assert cache("data.cache_missing=refuse") == 0
    assert "per entry" not in capsys.readouterr().out
    assert files(tmp_path / "cache") == kept


def test_another_instruction_is_another_cache_and_told(cache, capsys):
    cache("data.latents=online")
    assert cache("data.latents=online", "encoders.instruction=Paint:") == 0
    shown = capsys.readouterr().out
    assert "instruction 'Draw:\\n', not 'Paint:\\n'" in shown
    assert "latents are in" not in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training.task=vae",), "an autoencoder trains on images: there is nothing to cache"),
        (
            ("data.latents=online", "data.text_features=online"),
            "config.data.latents and config.data.text_features are 'online': set one to 'cached'",
        ),
    ],
)
def test_without_anything_to_cache_it_says_so(overrides, message, cache, capsys):
    assert cache(*overrides) == 2
    assert message in capsys.readouterr().err
