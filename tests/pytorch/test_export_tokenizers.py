"""An exported model cuts prompts into tokens as the model it comes from."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import torch
from tokenizers import normalizers

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, EncoderConfig
from lidit_jax.encoders.locations import content_digests
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.export import _export_encoders
from lidit_jax.pytorch.sampling import TextEncoder
from tests.tiny_encoders import save_encoder


def model_with(encoder: Path, **encoders: bool) -> SimpleNamespace:
    return SimpleNamespace(
        config=Config(encoders=EncoderConfig(**encoders)),
        provenance=Provenance(encoders=({"source": str(encoder), "layer": -3, "fingerprint": {}},)),
        shapes={"linguistic_refiner_0/projection/kernel": (16, 8)},
    )


@pytest.mark.parametrize("copied", [True, False])
def test_a_pipeline_s_encoder_has_its_tokenizer_beside_it(tmp_path, monkeypatch, copied):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    root, out = tmp_path / "pipeline", tmp_path / "out"
    folder = save_encoder(root / "text_encoder", "llama")
    (root / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(root / "tokenizer" / name)
    (stream,) = _export_encoders(model_with(root), out, copied, None)
    exported = tokenizers.Tokenizer.from_file(str(out / stream["tokenizer"]))
    ours = load_tokenizer(root / "tokenizer")
    assert exported.encode("a red", add_special_tokens=False).ids == ours.encode(["a red"])[0]
    if copied:
        assert content_digests(out / stream["source"]) == content_digests(folder)
    else:
        assert stream["source"] == str(folder.resolve())


@pytest.mark.parametrize("copied", [True, False])
def test_the_tokenizer_that_transformers_reads_goes_along(tmp_path, monkeypatch, copied):
    """Qwen2's class knows a normalizer that the file lacks, whether or not weights are copied."""
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    folder, out = save_encoder(tmp_path / "encoder", "llama"), tmp_path / "out"
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen2"}
    # Room for the tokens that the class adds to the vocabulary.
    (folder / "config.json").write_text(json.dumps(model | {"vocab_size": 300}))
    (stream,) = _export_encoders(model_with(folder), out, copied, None)
    exported = tokenizers.Tokenizer.from_file(str(out / stream["tokenizer"]))
    assert isinstance(exported.normalizer, normalizers.NFC)
    ours = load_tokenizer(folder)
    for text in ("cafe\u0301", "a red circle"):
        assert exported.encode(text, add_special_tokens=False).ids == ours.encode([text])[0]


def test_the_module_turns_prompts_into_lower_case_where_the_model_does(tmp_path):
    folder = save_encoder(tmp_path / "encoder", "llama")
    for lowercase, same in ((True, True), (False, False)):
        model = model_with(folder, lowercase=lowercase)
        (stream,) = _export_encoders(model, tmp_path / "out", False, None)
        encoder = TextEncoder(tmp_path, SimpleNamespace(**stream), torch.float32)
        written, lowered = (encoder([text], 20)[0] for text in ("A Red", "a red"))
        assert torch.equal(written, lowered) is same


@pytest.mark.parametrize("family", ["clip_text_model", "siglip"])
def test_an_encoder_that_the_module_cannot_run_is_named(tmp_path, family):
    config = {"model_type": family} | ({"text_config": {}} if family == "siglip" else {})
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LiditError, match=r"is a '\w+_text_model' model, which the exported module"):
        _export_encoders(model_with(tmp_path), tmp_path / "out", False, None)
