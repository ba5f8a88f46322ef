"""Settings of every test, made before JAX is first imported: 8 CPU devices, exact float32."""

import os

from tests.xla_flags import xla_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}".strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections import OrderedDict
from pathlib import Path

import jax
import jaxtyping
import pytest
from absl import flags
from jax._src import compilation_cache

from tests import type_checks

# Every call in the package is checked, so the package is imported after this line.
jaxtyping.install_import_hook("lidit_jax", f"{type_checks.__name__}.check")

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import Config
from lidit_jax.hardware.xla_flags import cpu_variables
from tests.tiny_encoders import save_encoder

# The tests run the programs that users run.
os.environ.update(cpu_variables())
jax.config.update("jax_default_matmul_precision", "highest")
# Grain's loader reads absl flags, which only `absl.app.run` would parse.
flags.FLAGS.mark_as_parsed()

_LONGEST = (
    "training/test_two_processes.py",
    "faults/test_kill_and_resume.py",
    "training/test_resume.py",
    "training/test_kept_statistics.py",
    "planning/test_tpu_compile.py",
    "test_packaging.py",
)
"""Files that take minutes. They come first: a worker that begins one at the end works alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; all others keep their order."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


_PROGRAMS = 20
"""Compiled programs in memory: those of three different training runs."""


@pytest.fixture(scope="module", autouse=True)
def memory_maps():
    """Forgets compiled programs before their memory maps are as many as Linux grants a process.

    One program has hundreds of them, and the compiler crashes at the 65,531st.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 25_000:
        jax.clear_caches()


@pytest.fixture
def unchecked_types():
    """For tests that give wrong types, to see that the package itself refuses them by name."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def repository(request: pytest.FixtureRequest):
    """The root of the checkout."""
    return request.config.rootpath


@pytest.fixture(scope="session")
def compiled_once():
    """Keeps compiled programs in memory: the tests train the same tiny model again and again.

    Those that JAX itself would keep, on disk, are not safe here: see
    `disable_unsafe_compilation_cache`.
    """
    kept = OrderedDict()

    def find(key, *_):
        if key in kept:
            kept.move_to_end(key)
        return kept.get(key, (None, None))

    def keep(key, name, executable, backend, seconds):
        kept[key] = executable, seconds
        # See `memory_maps`.
        if len(kept) > _PROGRAMS:
            kept.popitem(last=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation_cache, "is_cache_used", lambda backend: backend.platform == "cpu")
        patch.setattr(compilation_cache, "get_executable_and_time", find)
        patch.setattr(compilation_cache, "put_executable_and_time", keep)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        yield


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory) -> tuple[str, str]:
    """Folders of a causal and of a bidirectional encoder, both random."""
    folder = tmp_path_factory.mktemp("encoders")
    return tuple(str(save_encoder(folder / family, family)) for family in ("llama", "bert"))


@pytest.fixture(scope="session")
def tiny_config(compiled_once, tiny_encoders, tmp_path_factory):
    """`tiny_config("model.depth=3")`: the configuration of `tests/tiny_recipe.py`."""
    settings = (
        f"encoders.sources={tiny_encoders}",
        f"data.cache_dir={tmp_path_factory.mktemp('data')}",
    )

    def load(*overrides: str) -> Config:
        return load_recipe(str(Path(__file__).parent / "tiny_recipe.py"), [*settings, *overrides])

    return load


@pytest.fixture(scope="session")
def trained(tiny_config, tmp_path_factory) -> Path:
    """The workdir of the tiny recipe after its 8 steps, with checkpoints of steps 4 and 8."""
    from lidit_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("trained")
    train(tiny_config(), workdir)
    return workdir
