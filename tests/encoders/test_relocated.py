"""Encoders that have moved since training: named anew, or found by their content."""

import shutil

import numpy as np
import pytest

from lidit_jax.config.schema import EncoderConfig
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.encoders.locations import content_digests
from lidit_jax.encoders.relocated import SEARCH_PATH_VARIABLE, resolve_sources
from lidit_jax.errors import LiditError
from tests.tiny_encoders import save_encoder

OLD = "/old/machine/llm"


@pytest.fixture
def shelf(tmp_path):
    """A folder of encoders: the wanted one, and others with its tokenizer or without weights."""
    folder = tmp_path / "shelf"
    save_encoder(folder / "a-sibling", "llama", seed=1)
    save_encoder(folder / "renamed", "llama")
    shutil.copytree(folder / "renamed", folder / "pickled")
    (folder / "pickled" / "model.safetensors").rename(folder / "pickled" / "pytorch_model.bin")
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def remembered(shelf):
    return {"source": OLD, "fingerprint": content_digests(shelf / "renamed")}


@pytest.mark.parametrize("name", [OLD, "llm"])
def test_a_moved_encoder_is_where_it_is_said_to_be(shelf, remembered, name):
    place = str(shelf / "renamed")
    assert resolve_sources([OLD, "minilm"], [remembered, remembered], {name: place}) == (
        place,
        "minilm",
    )


def test_one_in_the_searched_folders_is_found_by_its_content(shelf, remembered, monkeypatch):
    """The folder may hold encoders, or be one."""
    for searched in (shelf, shelf / "renamed"):
        monkeypatch.setenv(SEARCH_PATH_VARIABLE, f"{shelf / 'a-sibling'}:{searched}")
        assert resolve_sources([OLD], [remembered]) == (str(shelf / "renamed"),)


def test_a_gguf_file_is_found_too(shelf, monkeypatch):
    file = shelf / "tiny.gguf"
    file.write_bytes(b"any content")
    remembered = {"source": "/old/model.gguf", "fingerprint": content_digests(file)}
    monkeypatch.setenv(SEARCH_PATH_VARIABLE, str(shelf))
    assert resolve_sources(["/old/model.gguf"], [remembered]) == (str(file),)


def test_what_is_where_it_was_is_not_looked_for(shelf, remembered, monkeypatch):
    monkeypatch.setenv(SEARCH_PATH_VARIABLE, str(shelf / "nowhere"))
    place = str(shelf / "a-sibling")
    sources = ("smollm2", place)
    assert resolve_sources(sources, [remembered, remembered]) == sources


def test_an_error_says_how_to_name_the_place(shelf, remembered, monkeypatch):
    with pytest.raises(LiditError, match=f"no encoder '{OLD}' here.*--encoder {OLD}=PATH.*LIDIT_"):
        resolve_sources([OLD], [remembered])
    with pytest.raises(LiditError, match="encoder 'lm' is none of this checkpoint's, which are /o"):
        resolve_sources([OLD], [remembered], {"lm": str(shelf)})
    monkeypatch.setenv(SEARCH_PATH_VARIABLE, str(shelf / "nowhere"))
    with pytest.raises(LiditError, match=r"LIDIT_ENCODERS names .*nowhere, which does not exist"):
        resolve_sources([OLD], [remembered])


def test_moved_encoders_serve_their_checkpoint_and_others_do_not(shelf):
    here = PromptEncoders(EncoderConfig(sources=(str(shelf / "renamed"),)))
    trained_with = [here.description[0] | {"source": OLD}]
    config = EncoderConfig(sources=(OLD,))
    moved = PromptEncoders.from_checkpoint(
        config, trained_with, places={OLD: str(shelf / "renamed")}
    )
    for ours, theirs in zip(moved.frozen, here.frozen, strict=True):
        np.testing.assert_array_equal(ours.params["embedding"], theirs.params["embedding"])
    with pytest.raises(LiditError, match="is not the one of this checkpoint: its fingerprint is"):
        PromptEncoders.from_checkpoint(config, trained_with, places={OLD: str(shelf / "a-sibling")})
    with pytest.raises(LiditError, match="has 1 encoders, this checkpoint was trained with 2"):
        PromptEncoders.from_checkpoint(config, trained_with * 2)
