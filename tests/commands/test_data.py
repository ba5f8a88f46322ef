"""`lidit data`: what it prints and writes, and how it fails."""

import json

import pytest
from PIL import Image

from lidit_jax.cli import main
from lidit_jax.data.index.open import open_index
from lidit_jax.data.sources import registry
from tests.data.index.tiny_source import picture, record, tiny

pytestmark = pytest.mark.output


@pytest.fixture
def source(monkeypatch):
    """Twelve records, and one whose picture is none."""
    source = tiny(3, 4)
    source.records["shard-1"].append(record(99, b"text", offset=4))
    monkeypatch.setattr(registry, "open_records", lambda _: source)
    return source


@pytest.fixture
def index(source, tmp_path, capsys):
    assert main(["data", "index", "tiny:memory", f"--out={tmp_path}/index", "--processes=1"]) == 0
    capsys.readouterr()
    return tmp_path / "index"


def test_an_index_is_made_and_summed_up(source, tmp_path, capsys):
    out, facts = tmp_path / "index", tmp_path / "facts.json"
    line = ["data", "index", "tiny:memory", f"--out={out}", "--processes=1", f"--json={facts}"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert f"{out}: 13 records in 3 shards, 12 of them usable\n" in shown
    assert f"problems: lidit data inspect {out}\n" in shown
    assert json.loads(facts.read_text())["problems"]["image"] == 1
    assert len(open_index(out)) == 13
    assert main([*line, "--near-duplicates"]) == 0
    assert open_index(out).perceptual_hash is not None


def test_inspect_counts_and_draws(index, tmp_path, capsys):
    page, facts = tmp_path / "page.png", tmp_path / "facts.json"
    line = ["data", "inspect", str(index), f"--out={page}", "--images=5", f"--json={facts}"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    for part in (
        "tiny:memory: 13 records, 12 usable",
        "below 64",
        "caption",
        "characters",
        "größe/99 is not a readable image: replace or remove it",
        str(page),
    ):
        assert part in shown
    found = json.loads(facts.read_text())
    assert found["aspects"]["1:1"] + found["aspects"]["4:3"] + found["aspects"]["3:4"] == 12
    assert found["first_problems"][0]["record"] == 8
    with Image.open(page) as sheet:
        assert sheet.width > 3 * 192
        before = sheet.tobytes()
    assert main(line) == 0
    with Image.open(page) as sheet:
        assert sheet.tobytes() == before, "a sample follows its seed"


def test_a_picture_that_cannot_be_decoded_is_told_below_it(index, source, tmp_path):
    source.records["shard-0"][0] = record(0, picture(8, 8)[:60], offset=0)
    page = tmp_path / "page.png"
    assert main(["data", "inspect", str(index), f"--out={page}"]) == 0
    assert page.exists()


def test_lengths_in_tokens_are_those_of_a_named_encoder(index, tmp_path, capsys):
    facts = tmp_path / "facts.json"
    line = ["data", "inspect", str(index), "--tokenizer=minilm", f"--json={facts}", "--sample=6"]
    assert main(line) == 0
    assert "tokens of minilm, in 6 records" in capsys.readouterr().out
    tokens = json.loads(facts.read_text())["tokens"]["minilm"]["caption"]
    assert tokens["captions"] == 6
    assert 1 <= tokens["median"] <= tokens["longest"] <= 4, '"red" is one token, up to four times'


@pytest.fixture
def folder(tmp_path):
    """Three pictures with captions, one without, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b", "größe"):
        (folder / f"{name}.png").write_bytes(picture(30, 20))
        (folder / f"{name}.txt").write_text(f"a picture named {name}")
    (folder / "c.png").write_bytes(picture(30, 20))
    (folder / "notes.doc").write_text("")
    return folder


def test_a_folder_is_indexed_inspected_and_converted(folder, tmp_path, capsys):
    """With two processes, by the names of formats alone."""
    index, records = tmp_path / "index", tmp_path / "records"
    assert main(["data", "index", f"folder:{folder}", f"--out={index}", "--processes=2"]) == 0
    shown = capsys.readouterr().out
    assert "4 records in 1 shards, 3 of them usable" in shown
    assert "left out: 1 .doc (notes.doc)" in shown
    assert main(["data", "inspect", str(index), f"--out={tmp_path}/page.png"]) == 0
    assert "c.png has no caption: write it to c.txt beside it" in capsys.readouterr().out
    assert main(["data", "convert", str(index), str(records), "--processes=1"]) == 0
    assert capsys.readouterr().out.endswith(f"{records}: 3 records in 1 shards\n")
    made = open_index(records / "index")
    assert [made.key(i) for i in range(3)] == ["a.png", "b.png", "größe.png"]
    assert main(["data", "inspect", f"{records}/index", f"--out={tmp_path}/page.png"]) == 0


def test_a_source_is_converted_without_an_index_of_its_own(folder, tmp_path, capsys):
    out = tmp_path / "records"
    line = ["data", "convert", f"folder:{folder}", str(out), "--records-per-shard=2"]
    for _ in range(2):
        assert main([*line, "--processes=1"]) == 0
        assert capsys.readouterr().out.endswith(f"{out}: 3 records in 2 shards\n")
    assert len(open_index(out / "index-of-source")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "x:y"], "--out"),
        (
            ["index", "a", "--out=index/b", "--", "--runner=x"],
            "options after -- (--runner=x) are for Beam: add --beam",
        ),
        (["index", "a", "--out=index/b", "--beam", "--processes=2"], "leave out --processes"),
        (["index", "a", "--out=index/b", "--processes=0"], "'0' is not a whole number above 0"),
        (["inspect", "none"], "none holds no index: make it with lidit data index SOURCE"),
        (["inspect", "none", "--out=page.jpg"], "--out: page.jpg must end in .png"),
        (["inspect", "none", "--tokenizer=nothing"], "no encoder 'nothing'"),
        (["convert", "none", "out"], "none does not exist: name a source as FORMAT:PATH"),
        (["convert", "a", "out", "--records-per-shard=0"], "'0' is not a whole number above 0"),
        (["look"], "invalid choice: 'look'"),
        ([], "ACTION"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--beam" in arguments:
        monkeypatch.setattr("lidit_jax.data.beam_work.BeamWork", lambda _: None)
    assert main(["data", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []


def test_a_source_that_is_none_leaves_nothing_behind(tmp_path, capsys):
    assert main(["data", "index", str(tmp_path / "none"), f"--out={tmp_path}/index"]) == 2
    assert capsys.readouterr().err.startswith("lidit: error: ")
    assert [*tmp_path.iterdir()] == []
