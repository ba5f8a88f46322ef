"""Tampered exports: each is refused in one line that names what was changed."""

import json
import shutil

import ml_dtypes  # noqa: F401  (teaches numpy the name "bfloat16")
import numpy as np
import pytest
import safetensors.numpy

from lidit_jax.checkpoints.bundle import is_bundle, save_bundle
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.import_weights import import_torch

from .exported import make_bundle, make_export, small

pytestmark = pytest.mark.output

TENSOR = "transformer_blocks.1.ff.linear_1.weight"
OTHER = "transformer_blocks.2.ff.linear_1.weight"


@pytest.fixture(scope="module")
def bundle(tiny_config, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), small(tiny_config()))


@pytest.fixture(scope="module")
def original(bundle, tmp_path_factory):
    return make_export(bundle, tmp_path_factory.mktemp("exported"))


@pytest.fixture
def exported(original, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(original, tmp_path / "exported")


def change(folder, edit):
    """Rewrites the tensors; the file itself stays sound."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    edit(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def nudge(tensors):
    tensors[TENSOR] = tensors[TENSOR].copy()
    tensors[TENSOR][0, 0] = np.nextafter(tensors[TENSOR][0, 0], np.float32(9))


def swap(tensors):
    tensors[TENSOR], tensors[OTHER] = tensors[OTHER], tensors[TENSOR]


def poison(tensors):
    tensors[TENSOR] = np.full_like(tensors[TENSOR], np.nan)


CHANGES = {
    "one bit": (nudge, f"{TENSOR} is not the exported tensor"),
    "swapped": (swap, f"{TENSOR} is not the exported tensor"),
    "NaN": (poison, f"{TENSOR} is not the exported tensor"),
    "missing": (lambda t: t.pop(TENSOR), f"1 missing: {TENSOR}"),
    "extra": (lambda t: t.update(backdoor=np.ones(3, np.float32)), "1 unexpected: backdoor"),
    "transposed": (
        lambda t: t.update({TENSOR: np.ascontiguousarray(t[TENSOR].T)}),
        f"1 of the wrong shape: {TENSOR} is",
    ),
    "another type": (
        lambda t: t.update({TENSOR: t[TENSOR].astype(np.float16)}),
        f"{TENSOR} is F16, was exported as F32",
    ),
}


def refused(folder, target, message, capsys):
    """Exit status 2, one line with the message, and no bundle."""
    assert main(["convert", "from-torch", str(folder), str(target)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not is_bundle(target)


@pytest.mark.parametrize("name", CHANGES)
def test_changed_tensors(name, exported, tmp_path, capsys):
    edit, message = CHANGES[name]
    change(exported, edit)
    refused(exported, tmp_path / "bundle", message, capsys)


def test_a_truncated_file(exported, tmp_path, capsys):
    file = exported / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(exported, tmp_path / "bundle", "is truncated or damaged", capsys)


@pytest.mark.parametrize("name", ["../stolen.safetensors", "/etc/passwd", "C:\\x.safetensors"])
def test_an_index_that_leads_out_of_the_folder(name, exported, tmp_path, capsys):
    (tmp_path / "stolen.safetensors").write_bytes(b"secret")
    index = {"weight_map": {TENSOR: name}}
    (exported / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(exported, tmp_path / "bundle", "model.safetensors.index.json names", capsys)


def test_pickled_weights_are_not_opened(exported, tmp_path, capsys):
    (exported / "model.safetensors").rename(exported / "pytorch_model.bin")
    refused(exported, tmp_path / "bundle", "pickled weights are never opened", capsys)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_missing_description(name, exported, tmp_path, capsys):
    (exported / name).unlink()
    refused(exported, tmp_path / "bundle", name, capsys)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99, "tensors": {}}'])
def test_a_damaged_manifest(content, exported, tmp_path, capsys):
    (exported / "manifest.json").write_text(content)
    refused(exported, tmp_path / "bundle", "manifest.json", capsys)


def test_a_changed_configuration(exported, tmp_path, capsys):
    config = json.loads((exported / "config.json").read_text())
    config["lidit"]["config"]["diffusion"]["prediction"] = "x0"
    (exported / "config.json").write_text(json.dumps(config))
    message = "config.json is not the exported file"
    refused(exported, tmp_path / "bundle", message, capsys)


def test_weights_that_are_not_finite_do_not_leave(bundle, tmp_path):
    """Here they are too large for the type that is asked for; NaN is found in the same place."""
    model = open_model(bundle)
    params = model.load()
    params["output"]["linear"]["bias"][:] = 1e6
    save_bundle(tmp_path / "large", params, model.config, model.provenance, "float32")
    with pytest.raises(LiditError, match=r"proj_out\.bias has values that are not finite in flo"):
        make_export(tmp_path / "large", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_checkpoint_that_lacks_a_parameter_is_named(bundle, tmp_path):
    model = open_model(bundle)
    params = model.load()
    del params["position"]["conv_1"]["bias"]
    save_bundle(tmp_path / "less", params, model.config, model.provenance, "float32")
    with pytest.raises(LiditError, match="1 missing: position/conv_1/bias"):
        make_export(tmp_path / "less", tmp_path / "out")


def test_nothing_is_left_of_a_failed_import(exported, tmp_path):
    change(exported, nudge)
    target = tmp_path / "bundle"
    target.mkdir()
    with pytest.raises(LiditError):
        import_torch(exported, target)
    assert list(target.iterdir()) == []
