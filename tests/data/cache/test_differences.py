"""What tells a missing store from the most similar one that is there."""

import json

import pytest

from lidit_jax.data.cache.differences import differences

OURS = {"data": "d1", "shapes": [[64, 64]], "autoencoder": "a1", "layer": -3}


@pytest.fixture
def store(tmp_path):
    def write(name, **changes):
        (tmp_path / name).mkdir()
        about = {"description": OURS | changes}
        (tmp_path / name / "header.json").write_text(json.dumps(about))

    return write


def told(tmp_path):
    return differences(tmp_path / "latents-ours", OURS)


def test_without_others_there_is_nothing_to_tell(tmp_path, store):
    assert differences(tmp_path / "none" / "latents-ours", OURS) == ""
    store("text-other", layer=-2)
    (tmp_path / "latents-empty").mkdir()
    (tmp_path / "latents-broken").mkdir()
    (tmp_path / "latents-broken" / "header.json").write_text("{")
    assert told(tmp_path) == ""


def test_the_most_similar_is_compared(tmp_path, store):
    store("latents-far", layer=-2, autoencoder="a2")
    store("latents-near", layer=-2)
    assert told(tmp_path) == "those in latents-near are others: layer -2, not -3"


def test_other_data_counts_only_if_all_else_is_equal(tmp_path, store):
    store("latents-unrelated", data="d2", layer=-2)
    assert told(tmp_path) == ""
    store("latents-related", data="d2", shapes=[[32, 32]])
    assert told(tmp_path) == (
        "those in latents-related are others: the data (records, filters, captions or shapes), "
        "shapes [[32, 32]], not [[64, 64]]"
    )


def test_long_values_are_cut_and_new_ones_named(tmp_path, store):
    store("latents-old", autoencoder="a" * 99, size=5)
    assert told(tmp_path) == (
        f"those in latents-old are others: autoencoder '{'a' * 47}…, not 'a1', size 5, not None"
    )
