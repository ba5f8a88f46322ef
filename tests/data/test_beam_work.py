"""An index made by a Beam pipeline is the same to the byte; skipped where Beam is not installed."""

import importlib.util
import sys

import pytest

from lidit_jax.data.beam_work import BeamWork
from lidit_jax.data.conversion import convert
from lidit_jax.data.index.build import build_index
from lidit_jax.data.shared_work import share_work
from lidit_jax.data.sources.registry import open_records
from lidit_jax.errors import LiditError
from tests.data.index.tiny_source import files, picture, record, tiny

with_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="needs Apache Beam: pip install 'lidit-jax[beam]'",
)
DIRECT = ["--runner=DirectRunner"]


def folder(path):
    path.mkdir()
    return path


@with_beam
@pytest.mark.parametrize("near_duplicates", [False, True])
def test_a_pipeline_makes_the_same_index_to_the_byte(near_duplicates, tmp_path):
    ours = build_index(tiny(4), folder(tmp_path / "a"), near_duplicates=near_duplicates)
    work = BeamWork(DIRECT)
    theirs = build_index(
        tiny(4), folder(tmp_path / "b"), near_duplicates=near_duplicates, work=work
    )
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert ours.fingerprint == theirs.fingerprint


@with_beam
def test_workers_in_processes_of_their_own_do_too(tmp_path):
    build_index(tiny(4), folder(tmp_path / "a"))
    processes = [*DIRECT, "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    build_index(tiny(4), folder(tmp_path / "b"), work=BeamWork(processes))
    assert files(tmp_path / "a") == files(tmp_path / "b")


@with_beam
def test_what_one_has_begun_the_other_ends(tmp_path):
    scanned = str(tmp_path / "scanned")
    source = tiny(3, scanned=scanned)
    broken = source.records["broken"] = [record(9, picture(8, 8))]
    for work in (BeamWork(DIRECT), share_work):
        with pytest.raises(LiditError, match="broken is cut off: copy it again"):
            build_index(source, (tmp_path / "a").mkdir(exist_ok=True) or tmp_path / "a", work=work)
    del source.records["broken"]
    assert broken
    build_index(source, tmp_path / "a", work=BeamWork(DIRECT))
    lines = [line.split()[0] for line in (tmp_path / "scanned").read_text().splitlines()]
    assert sorted(lines) == ["broken", "broken", "shard-0", "shard-1", "shard-2"]


@with_beam
def test_a_pipeline_converts_to_the_same_bytes(tmp_path):
    pytest.importorskip("array_record")
    pictures = folder(tmp_path / "pictures")
    for name in "abc":
        (pictures / f"{name}.png").write_bytes(picture(30, 20))
        (pictures / f"{name}.txt").write_text(f"a picture named {name}")
    build_index(open_records(f"folder:{pictures}"), folder(tmp_path / "index"))
    for name, work in (("processes", share_work), ("beam", BeamWork(DIRECT))):
        out = folder(folder(tmp_path / name) / "records")
        made = convert(tmp_path / "index", out, work, records_per_shard=2)
        assert len(made) == 3
    one, other = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "records").glob("*_record")}
        for name in ("processes", "beam")
    )
    assert one == other
    assert len(one) == 2


@with_beam
def test_a_pipeline_that_fails_is_one_line(tmp_path):
    with pytest.raises(LiditError, match="the Beam pipeline failed"):
        build_index(tiny(), folder(tmp_path / "a"), work=BeamWork(["--runner=NoSuchRunner"]))


def test_without_beam_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options", None)
    with pytest.raises(LiditError, match=r"--beam needs Apache Beam: pip install 'lidit-jax\[beam"):
        BeamWork()
