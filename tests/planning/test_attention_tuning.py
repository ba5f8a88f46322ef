"""Tiles are ranked by the compiler's schedule, and the best are used from then on."""

import json
import shutil
import warnings

import pytest

from lidit_jax.attention.tiles import LANES, Tiles, choose_tiles
from lidit_jax.attention.tuned import Shape, save_tiles, tuned_tiles
from lidit_jax.cli import main
from lidit_jax.planning import attention_tuning
from lidit_jax.planning.attention_tuning import Ranked, candidates, kernel_cycles, scheduled_bundles

SHAPE = Shape("v5e", 128, 4096, 4096)
BUNDLES = """\
LB: loop body
     0   :  { %s1 = smov 0 }
   0x8 LB: > { first of a row }
  0x28 PF: > { a tile's work }
  0x29   : > { ... }
 0x400 PF: > { last of a row }
 0x47f   :  { end }
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path))
    return tmp_path


def test_the_largest_region_of_a_schedule_is_the_work_of_a_tile():
    assert scheduled_bundles(BUNDLES) == (0x400 - 0x28, 0x480 - (0x400 - 0x28))


def test_a_tile_takes_its_bundles_or_its_products_whichever_is_more():
    """Four rows of two tiles; 2 x 2 x 1024 x 2048 x 128 operations at 2**17 a cycle are 8192."""
    forward = kernel_cycles(SHAPE, Tiles(1024, 2048, 512), "splash_mha_fwd", BUNDLES)
    assert forward == 4 * 2 * (8192 + 500) + 4 * (0x480 - 0x3D8)
    narrow = Shape("v5e", 64, 4096, 4096)
    assert kernel_cycles(narrow, Tiles(1024, 2048, 512), "splash_mha_fwd", BUNDLES) == forward


@pytest.mark.parametrize("lengths", [(4096, 4096), (4096, 200), (1100, 1100), (64, 64)])
def test_candidates_are_tiles_that_the_kernel_takes_and_that_pad_little(lengths):
    found = candidates(Shape("v6e", 64, *lengths))
    assert found
    assert len(set(found)) == len(found)
    for one in found:
        assert one.key % one.key_compute == 0
        assert not any(n % LANES for n in (one.query, one.key, one.key_compute))


def test_tuned_tiles_are_used_for_exactly_their_sizes(cache):
    usual = choose_tiles("v5e", 128, 4096, 4096, 2)
    save_tiles(Shape("v5e", 128, 2048, 2048), (512, 512, 256), "schedule")
    file = save_tiles(SHAPE, (256, 512, 256), "time")
    assert file.parent == cache
    assert len(json.loads(file.read_text())) == 2
    assert choose_tiles("v5e", 128, 4096, 4096, 2) == Tiles(256, 512, 256) != usual
    assert choose_tiles("v5e", 128, 4096, 4096, 4) != Tiles(256, 512, 256), "tuned for 16 bits"
    assert choose_tiles("v5p", 128, 4096, 4096, 2) == usual
    assert tuned_tiles(Shape("v5e", 64, 4096, 4096)) is None


def test_an_estimate_never_replaces_what_was_found_by_time(cache):
    first, second = (256, 512, 256), (512, 512, 256)
    assert save_tiles(SHAPE, first, "schedule")
    assert save_tiles(SHAPE, second, "schedule")
    assert save_tiles(SHAPE, first, "time")
    assert save_tiles(SHAPE, second, "schedule") is None
    assert tuned_tiles(SHAPE) == first
    assert save_tiles(SHAPE, second, "time")
    assert tuned_tiles(SHAPE) == second


def test_the_first_files_kept_estimates(cache):
    (cache / "attention_tiles.json").write_text(json.dumps({SHAPE.key: [256, 512, 256]}))
    assert tuned_tiles(SHAPE) == (256, 512, 256)
    assert save_tiles(SHAPE, (512, 512, 256), "schedule")
    assert tuned_tiles(SHAPE) == (512, 512, 256)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "\udcff",
        json.dumps({SHAPE.key: 256}),
        json.dumps({SHAPE.key: [256, "512", 256]}),
        json.dumps({SHAPE.key: [256, 0, 256]}),
        json.dumps({SHAPE.key: {"tiles": [256, 512], "found_by": "time"}}),
        json.dumps({SHAPE.key: {"tiles": [256, 512, 256], "found_by": "luck"}}),
        json.dumps({SHAPE.key: {"tiles": [256, 512, 256]}}),
    ],
)
def test_a_damaged_file_is_empty_and_says_so_once(content, cache):
    file = cache / "attention_tiles.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.warns(UserWarning, match=r"attention_tiles.json is damaged .*: delete it, or run"):
        assert tuned_tiles(SHAPE) is None
    with warnings.catch_warnings(action="error"):
        assert choose_tiles("v5e", 128, 4096, 4096, 2) == Tiles(1024, 2048, 512)
        assert save_tiles(SHAPE, (256, 512, 256), "schedule") == file
    assert tuned_tiles(SHAPE) == (256, 512, 256)


ESTIMATE = ["tune", "attention", "--generation=v5e", "--head-width=128", "--tiles=512,512,256"]


def test_the_command_says_when_it_keeps_nothing(cache, monkeypatch, capsys):
    monkeypatch.setattr(
        attention_tuning, "rank", lambda shape, tiles, **_: [Ranked(tiles[0], cycles=9.0)]
    )
    save_tiles(SHAPE, (256, 512, 256), "time")
    assert main(ESTIMATE) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "not stored: measured tiles are kept"
    assert tuned_tiles(SHAPE) == (256, 512, 256)


def test_costs_have_a_place_before_the_search(cache, monkeypatch, capsys):
    def rank(*_, **__):
        raise AssertionError("searched")

    monkeypatch.setattr(attention_tuning, "rank", rank)
    (cache / "file").touch()
    assert main([*ESTIMATE, f"--json={cache / 'file' / 'costs.json'}"]) == 2
    assert "--json: cannot write to" in capsys.readouterr().err


def test_tiles_are_kept_though_costs_cannot_be_written(cache, monkeypatch):
    def rank(shape, tiles, **_):
        shutil.rmtree(cache / "costs")
        return [Ranked(tiles[0], cycles=9.0)]

    monkeypatch.setattr(attention_tuning, "rank", rank)
    with pytest.raises(FileNotFoundError):
        main([*ESTIMATE, f"--json={cache / 'costs' / 'costs.json'}"])
    assert tuned_tiles(SHAPE) == (512, 512, 256)


def test_the_command_compiles_where_there_is_no_tpu(cache, capsys):
    pytest.importorskip("libtpu", reason="libtpu is not installed: pip install 'jax[tpu]' (Linux)")
    arguments = ["tune", "attention", "--generation=v5e", "--head-width=64", "--queries=256"]
    file = cache / "costs.json"
    assert main([*arguments, "--tiles=256,256,256", f"--json={file}"]) == 0
    assert "best: queries 256, keys 256 by 256" in capsys.readouterr().out
    (only,) = json.loads(file.read_text())["tiles"]
    assert only["cycles"] > 7 * 2 * 256 * 256 * 128 / 2**17, "never faster than the products"
    assert tuned_tiles(Shape("v5e", 64, 256, 256)) == (256, 256, 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "this machine has no TPU, only cpu: set --generation (v4, v5e, v5p"),
        (["--generation=v9"], "--generation=v9: choose one of v4, v5e, v5p, v6e, tpu7x"),
        (["--generation=v5e", "--tiles=1024"], "write queries, keys, keys per product"),
        (["--generation=v5e", "--tiles=128²,128,128"], "write queries, keys, keys per product"),
        (["--generation=v5e", "--tiles=100,200,100"], "must be multiples of 128, the third"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    assert main(["tune", "attention", *arguments]) == 2
    assert message in capsys.readouterr().err
