"""Encoders as diffusers' pipelines have them: `text_encoder/` beside `tokenizer/`."""

import json
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import transformers

from lidit_jax import encoders
from lidit_jax.encoders.locations import content_digests, locate_encoder
from lidit_jax.encoders.relocated import SEARCH_PATH_VARIABLE, resolve_sources
from lidit_jax.errors import LiditError
from tests.encoders.tiny_models import randomize
from tests.tiny_encoders import save_encoder
from tests.weights.test_sentencepiece_tokenizer import PIECES
from tests.weights.test_sentencepiece_tokenizer import save as save_sentencepiece


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pipeline(tmp_path) -> Path:
    """A LLaMA with a `tokenizer.json`, and a T5 with only its SentencePiece model."""
    root = tmp_path / "pixart"
    save_encoder(root / "text_encoder", "llama")
    (root / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (root / "text_encoder" / name).rename(root / "tokenizer" / name)
    sizes = {"d_model": 24, "d_ff": 32, "num_layers": 2, "num_heads": 3, "d_kv": 8}
    config = transformers.T5Config(**sizes, vocab_size=len(PIECES) + 5)
    model = transformers.T5EncoderModel(config)
    randomize(model)
    model.save_pretrained(root / "text_encoder_2")
    save_sentencepiece(root / "tokenizer_2")
    (root / "model_index.json").write_text("{}")
    return root


def test_a_pipeline_stands_for_its_first_encoder(pipeline):
    ours = encoders.load(str(pipeline))
    assert ours.folder == pipeline / "text_encoder"
    assert ours.tokenizer.folder == pipeline / "tokenizer"
    assert ours.reading == {}
    plain = pipeline.parent / "plain"
    shutil.copytree(pipeline / "text_encoder", plain)
    shutil.copytree(pipeline / "tokenizer", plain, dirs_exist_ok=True)
    theirs = encoders.load(str(plain))
    assert ours.fingerprint == theirs.fingerprint
    tokens = ours.tokenize(["a red circle"])
    np.testing.assert_array_equal(tokens.ids, theirs.tokenize(["a red circle"]).ids)


def test_the_second_encoder_has_the_second_tokenizer(pipeline):
    ours = encoders.load(str(pipeline / "text_encoder_2"))
    tokens = ours.tokenize(["red circle"], encoders.PromptFormat(""))
    assert [ours.tokenizer.backend.id_to_token(i) for i in tokens.ids[0]] == [
        *("▁red", "▁", "circle", "</s>")
    ]
    assert np.isfinite(ours.encode(tokens, -1)).all()
    assert ours.reading.keys() == {"reading"}
    assert ours.fingerprint == content_digests(pipeline / "text_encoder_2")
    (pipeline / "tokenizer_2" / "spiece.model").rename(pipeline / "other.model")
    with pytest.raises(LiditError, match=r"tokenizer_2/tokenizer.json is missing: save the token"):
        encoders.load(str(pipeline / "text_encoder_2"))


def test_a_moved_pipeline_is_found_by_its_content(pipeline, tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    streams = [
        {"fingerprint": content_digests(pipeline / name)}
        for name in ("text_encoder", "text_encoder_2")
    ]
    moved = shutil.move(pipeline, shelf / "renamed")
    sources = ("/old/pixart", "/old/pixart/text_encoder_2")
    monkeypatch.setenv(SEARCH_PATH_VARIABLE, str(shelf))
    found = tuple(str(Path(moved) / name) for name in ("text_encoder", "text_encoder_2"))
    assert resolve_sources(sources, streams) == found
    hub_id = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS/text_encoder"
    assert resolve_sources([hub_id], [{"fingerprint": {"tokenizer": "0"}}]) == (hub_id,)


def test_a_pipeline_on_the_hub_is_downloaded_in_part(pipeline, tmp_path, monkeypatch):
    asked = []

    def download(hub_id, allow_patterns):
        """The files that the patterns choose, as the hub's client does."""
        asked.append(hub_id)
        for file in pipeline.rglob("*"):
            name = file.relative_to(pipeline).as_posix()
            if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                target = tmp_path / "snapshot" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (pipeline / "transformer").mkdir()
    (pipeline / "transformer" / "model.safetensors").touch()
    (pipeline / "text_encoder" / "pytorch_model.bin").touch()
    (pipeline / "text_encoder" / "model.fp16.safetensors").touch()
    assert encoders.load("PixArt-alpha/Pixart").width == 16
    snapshot = tmp_path / "snapshot"
    names = {p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()}
    assert {name for name in names if "config" not in name} == {
        *("model_index.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json")
    }
    assert locate_encoder("PixArt-alpha/Pixart/text_encoder_2") == snapshot / "text_encoder_2"
    assert set(asked) == {"PixArt-alpha/Pixart"}
    with pytest.raises(LiditError, match="PixArt-alpha/Pixart has no folder text_encoder_3"):
        locate_encoder("PixArt-alpha/Pixart/text_encoder_3")
    shutil.rmtree(snapshot)
    (pipeline / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(
        LiditError,
        match=r"pickled weights are never opened: where PyTorch is installed, "
        r"`T5EncoderModel\.from_pretrained\('PixArt-alpha/Pixart', subfolder='text_encoder_2'\)"
        r"\.save_pretrained\('NEW/text_encoder_2'\)` and `AutoTokenizer\.from_pretrained\(",
    ):
        locate_encoder("PixArt-alpha/Pixart/text_encoder_2")


def test_pickled_shards_are_refused_with_the_remedy(pipeline):
    folder = pipeline / "text_encoder_2"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-00001-of-00002.bin").touch()
    remedy = f"`T5EncoderModel.from_pretrained('{folder}').save_pretrained('{folder}')`"
    with pytest.raises(LiditError, match=re.escape(remedy)):
        encoders.load(str(folder))
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LiditError, match="`from transformers import AutoModel`"):
        encoders.load(str(folder))
