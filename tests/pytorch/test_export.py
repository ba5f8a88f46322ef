"""`lidit convert to-torch` and back: the same numbers, the same pictures, without JAX."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.cli import main
from lidit_jax.config.text import clean_text
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.pytorch import parity
from lidit_jax.pytorch.export import MODULE, module_source
from lidit_jax.pytorch.import_weights import import_torch
from lidit_jax.sampling.pipeline import Pipeline

from ..tiny_encoders import WIDTH, save_encoder
from .exported import make_bundle, make_export, small

# Runs a file in an environment where these cannot be imported.
WITHOUT_JAX = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "lidit_jax"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
sys.path[0] = ""
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def bundle(tiny_config, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), small(tiny_config()))


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    """In several files, encoders included."""
    out = tmp_path_factory.mktemp("exported")
    return make_export(bundle, out, with_encoders=True, shard_bytes=20_000)


@pytest.mark.numeric
def test_every_block_and_the_pictures_are_the_same(bundle, exported, tmp_path):
    report = parity.compare(bundle, exported)
    report.save(tmp_path / "parity.json")
    assert report.passed, report.table()
    components = [row.component for row in report.differences]
    assert components == [
        "encoder 0",
        "encoder 1",
        "linguistic refiner 0",
        "linguistic refiner 0, pooled",
        "linguistic refiner 1",
        "linguistic refiner 1, pooled",
        "collaborative refiner, stream 0",
        "collaborative refiner, stream 1",
        "DiT block 0",
        "DiT block 1",
        "DiT block 2",
        "prediction",
    ]
    assert all(row.error < 1e-4 for row in report.differences)  # encoders too
    assert json.loads((tmp_path / "parity.json").read_text())["passed"]


def test_the_comparison_notices_one_changed_tensor(bundle, exported, tmp_path):
    model = parity.load_module(exported / MODULE).LIDiT.from_pretrained(exported)
    model.network.transformer_blocks[1].ff.linear_1.bias += 0.01
    original = open_model(bundle)
    rows = parity._blocks(model, original.load(), original.config)
    broken = [row.component for row in rows if row.error > parity.TOLERANCE]
    assert broken[0] == "DiT block 1"


def test_there_and_back_is_bit_equal(bundle, exported, tmp_path):
    import_torch(exported, tmp_path)
    before, after = open_model(bundle), open_model(tmp_path)
    assert after.config == before.config
    assert after.provenance == before.provenance
    jax.tree.map(np.testing.assert_array_equal, before.load(), after.load())


def test_files_are_cut_and_indexed_as_on_the_hub(exported):
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    for name in files:
        tensors = safetensors.numpy.load_file(exported / name)
        assert {index["weight_map"][tensor] for tensor in tensors} == {name}


def test_it_has_a_model_card_that_the_author_may_rewrite(bundle, exported, tmp_path, capsys):
    card = (exported / "README.md").read_text()
    assert f'LIDiT.from_pretrained("{exported.name}")' in card
    (tmp_path / "README.md").write_text("the author's own")
    assert main(["convert", "to-torch", str(bundle), str(tmp_path), "--no-parity"]) == 0
    assert "README.md is kept: it may describe another checkpoint\n" in capsys.readouterr().out
    assert (tmp_path / "README.md").read_text() == "the author's own"
    assert "README.md" not in json.loads((tmp_path / "manifest.json").read_text())["files"]


def test_a_process_without_jax_draws_the_same_picture(bundle, exported, tmp_path):
    script = tmp_path / "without_jax.py"
    script.write_text(WITHOUT_JAX)
    picture = tmp_path / "circle.png"
    command = [sys.executable, script, exported / MODULE, "--prompt=a red circle", "--seed=7"]
    subprocess.run([*command, f"--out={picture}"], check=True, cwd=tmp_path, timeout=300)

    from PIL import Image

    ours = Pipeline.from_checkpoint(bundle)(["a red circle"], seed=7)[0]
    assert parity.psnr(ours, np.asarray(Image.open(picture))) >= 45


def test_it_is_a_diffusers_pipeline(bundle, exported, tmp_path, monkeypatch):
    import diffusers
    import torch

    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path))
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        str(exported), custom_pipeline=str(exported), trust_remote_code=True
    )
    images = pipe(["a red circle", "two stars"], seed=3).images
    ours = Pipeline.from_checkpoint(bundle)(["a red circle\n", "two stars"], seed=3)
    assert parity.psnr(ours, np.stack([np.asarray(image) for image in images])) >= 45
    drawn = pipe("x", generator=torch.Generator().manual_seed(0), num_inference_steps=1).images
    assert drawn[0].size == (32, 32)


@pytest.mark.numeric
def test_noise_of_a_seed_is_jaxs(exported):
    module = parity.load_module(exported / MODULE)
    for seed in (0, 1, 2**32 - 1):
        key = jax.random.key(jax.numpy.uint32(seed))
        ours = jax.random.normal(key, (16, 16, 4))
        np.testing.assert_allclose(ours, module.noise_of_seed(seed, (16, 16, 4)), atol=3e-5)
        fresh = jax.random.normal(jax.random.fold_in(key, 3), (8,))
        np.testing.assert_allclose(fresh, module.noise_of_seed(seed, (8,), step=2), atol=3e-5)


@pytest.mark.parametrize(
    ("process", "prediction", "sampler"),
    [
        ("ddpm", "epsilon", ("sampler=ddim",)),
        ("ddpm", "v", ("sampler=ddim", "eta=0.5")),
        ("flow", "velocity", ("sampler=euler_ancestral", "shift=2.0")),
    ],
)
def test_other_processes_are_sampled_alike(process, prediction, sampler, tiny_config, tmp_path):
    own = (f"diffusion.process={process}", f"diffusion.prediction={prediction}")
    config = small(tiny_config(*own, *(f"sampling.{setting}" for setting in sampler)))
    bundle = make_bundle(tmp_path / "bundle", config)
    out = make_export(bundle, tmp_path / "out")
    ours = Pipeline.from_checkpoint(bundle)(["a red circle"], seed=1)
    theirs = parity.load_module(out / MODULE).LIDiT.from_pretrained(out)
    assert parity.psnr(ours, theirs(["a red circle"], seed=1).numpy()) >= 45


def test_an_imported_pixart_is_exported_as_well(tiny_config, tmp_path):
    """With a T5 that has no decoder, and a spacing that the exported sampler does not have."""
    t5 = save_encoder(tmp_path / "t5", "llama")  # for its tokenizer
    sizes = {"vocab_size": 257, "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_heads": 2}
    transformers.T5EncoderModel(transformers.T5Config(num_layers=2, **sizes)).save_pretrained(t5)
    config = tiny_config(
        *(f"encoders.sources=('{t5}',)", "encoders.layers=(-1,)", "encoders.instruction="),
        *("model.width=24", "model.heads=2", "model.qk_norm=False", "model.size_embedding=1"),
        *("model.position=sincos", "model.sincos_extent=3.0", "model.sincos_order=column_first"),
        *("model.cross_attention=plain", "model.output_modulation=table"),
        *("model.refiner.blocks=0", "model.refiner.feature_norm=none"),
        *("model.refiner.pool=none", "model.refiner.projection=mlp"),
        *("diffusion.process=ddpm", "diffusion.prediction=epsilon"),
        *("sampling.sampler=dpm++2m", "sampling.spacing=linspace"),
    )
    bundle = make_bundle(tmp_path / "bundle", config)
    out = make_export(bundle, tmp_path / "out")
    report = parity.compare(bundle, out)
    assert report.passed, report.table()
    assert not any("pooled" in row.component for row in report.differences)
    (tmp_path / "back").mkdir()
    import_torch(out, tmp_path / "back")
    before, after = open_model(bundle).load(), open_model(tmp_path / "back").load()
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_half_precision_has_half_the_size(bundle, exported, tmp_path):
    out = make_export(bundle, tmp_path, dtype="bfloat16")
    whole = sum(file.stat().st_size for file in exported.glob("model*.safetensors"))
    assert (out / "model.safetensors").stat().st_size < 0.6 * whole
    rows = parity.compare(bundle, out, dtype="bfloat16")
    assert rows.passed, rows.table()


def test_the_command_line(bundle, tmp_path, capsys):
    assert main(["convert", "to-torch", str(bundle), str(tmp_path / "out"), "--no-parity"]) == 0
    back = str(tmp_path / "back")
    assert main(["convert", "from-torch", str(tmp_path / "out"), back]) == 0
    assert "all tensors are equal" in capsys.readouterr().out
    assert main(["convert", "to-torch", back, str(tmp_path / "again"), "--raw"]) == 2
    assert "leave out --raw" in capsys.readouterr().err


def test_the_exported_file_knows_nothing_of_this_package():
    source = module_source()
    compile(source, MODULE, "exec")
    assert not any(f"{word} lidit_jax" in source for word in ("import", "from"))
    assert "import jax" not in source


def test_the_exported_file_reads_prompts_as_this_package_does(tmp_path):
    (tmp_path / MODULE).write_text(module_source(), encoding="utf-8")
    module = parity.load_module(tmp_path / MODULE)
    for text in (*PROBE_PROMPTS, "\ufeffa red\u2028circle\n", "a\x85b", "cafe\ufeff\u0301"):
        assert module.clean_text(text) == clean_text(text)
    assert module.broken_characters("a \ud83d") == "\ud83d"


def test_raw_and_averaged_weights_of_a_workdir(trained, tmp_path):
    from lidit_jax.pytorch.export import export_torch

    loaded = []
    for raw in (True, False):
        out = tmp_path / f"raw {raw}"
        out.mkdir()
        export_torch(open_model(trained, raw=raw), out, raw=raw)
        (tmp_path / f"back {raw}").mkdir()
        import_torch(out, tmp_path / f"back {raw}")
        back = open_model(tmp_path / f"back {raw}").load()
        expected = open_model(trained, raw=raw).load()
        jax.tree.map(np.testing.assert_array_equal, back, expected)
        loaded.append(back["output"]["linear"]["kernel"])
    assert np.abs(loaded[0] - loaded[1]).max() > 0
