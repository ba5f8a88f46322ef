"""`lidit cache`: what training would encode before its first step, and nothing twice."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lidit_jax.cli import main
from tests.data.cache.stand_ins import files
from tests.xla_flags import xla_flags

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


_PROGRAM = """
import sys
from lidit_jax.data.cache import layout
layout._SHARD_BYTES = 2**16
from lidit_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def processes(tiny_encoders, tmp_path):
    """`processes(folder, ...)`: what each process prints, started with its folder for the cache."""

    def run(*folders):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        started = []
        for number, folder in enumerate(folders):
            environment = os.environ | {
                "XLA_FLAGS": xla_flags(2),
                "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
            }
            if len(folders) > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                    "JAX_NUM_PROCESSES": str(len(folders)),
                    "JAX_PROCESS_ID": str(number),
                }
            settings = {
                "encoders.sources": tiny_encoders[:1],
                "data.cache_dir": tmp_path / folder,
                "data.train_records": 96,
                "data.distinct_captions": 96,
            }
            line = ["cache", f"--config={RECIPE}"]
            line += [f"--config.{name}={value}" for name, value in settings.items()]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *line],
                    env=environment,
                    cwd=RECIPE.parents[1],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        outputs = [process.communicate(timeout=300)[0] for process in started]
        return outputs, [process.returncode for process in started]

    return run


def test_two_processes_make_what_one_makes(processes, tmp_path):
    outputs, ended = processes("shared", "shared")
    assert ended == [0, 0], outputs
    assert "latents: 120 entries" in outputs[0]
    assert "entries" not in outputs[1]
    _, ended = processes("alone")
    assert ended == [0]
    ours, theirs = files(tmp_path / "shared"), files(tmp_path / "alone")
    assert ours == theirs
    assert sum(name.endswith(".array_record") for name in ours) > 15


def test_hosts_that_do_not_share_the_folder_are_told(processes):
    outputs, ended = processes("one", "other")
    assert all(ended)
    assert any(
        "config.data.cache_dir must be a folder or bucket that all hosts share" in output
        for output in outputs
    ), outputs
