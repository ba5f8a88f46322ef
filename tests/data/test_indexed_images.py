"""Any format trains by an index: squares, captions, held-out records, and what it refuses."""

import io
import tarfile

import numpy as np
import pyarrow
import pytest
from lidit_jax.data.source_kinds import open_image_source
from PIL import Image
from pyarrow import parquet

from lidit_jax.data.index.build import build_index
from lidit_jax.data.sources.registry import FORMATS, open_records
from lidit_jax.errors import LiditError
from tests import fake_hub


def write_tar(file, records):
    """A WebDataset: (key, width, caption) each, red by its number; no caption for None."""
    with tarfile.open(file, "w") as tar:
        for number, (key, width, caption) in enumerate(records):
            image = io.BytesIO()
            Image.new("RGB", (width, 40), (number, 0, 0)).save(image, "PNG")
            members = {"png": image.getvalue()}
            if caption is not None:
                members["txt"] = caption.encode()
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path):
    """Two tars of 30 records; the last has no caption."""
    folder = tmp_path / "tars"
    folder.mkdir()
    records = [(f"{i:03d}", 30 + i, f"picture  {i}") for i in range(29)] + [("029", 30, None)]
    write_tar(folder / "0.tar", records[:15])
    write_tar(folder / "1.tar", records[15:])
    return folder


@pytest.fixture
def opened(tiny_config, tars, tmp_path):
    """`opened("train", *overrides)`."""

    def open_split(split, *overrides, path=tars):
        config = tiny_config(
            "data.source=webdataset",
            f"data.path={path}",
            f"data.cache_dir={tmp_path / 'cache'}",
            *overrides,
        )
        return open_image_source(config, split)

    return open_split


def test_records_are_squares_with_cleaned_captions(opened, capsys):
    train, heldout = opened("train"), opened("heldout")
    assert "1 of 30 records cannot be used" in capsys.readouterr().out
    assert (len(train), len(heldout)) == (28, 1)
    record = train[0]
    assert record["image"].shape == (32, 32, 3)
    number = int(record["image"][0, 0, 0])
    assert (record["caption"], record["index"]) == (f"picture {number}", 0)
    captions = {source.caption(i) for source in (train, heldout) for i in range(len(source))}
    assert captions == {f"picture {i}" for i in range(29)}, "held-out records train nothing"


def test_keys_decide_which_records_are_held_out(opened, tars):
    before = opened("heldout", "data.validation_records=1").caption(0)
    write_tar(tars / "2.tar", [("x", 30, "a later one")])
    assert opened("heldout", "data.validation_records=1").caption(0) == before
    assert len(opened("train", "data.validation_records=1")) == 29


def test_its_name_changes_with_content_and_not_with_place(opened, tars, tmp_path):
    name = repr(opened("train"))
    moved = tars.rename(tmp_path / "moved")
    assert repr(opened("train", path=moved)) == name
    assert opened("train", path=moved).digests().shape == (28, 2)
    write_tar(moved / "1.tar", [("015", 30, "another")])
    assert repr(opened("train", path=moved)) != name


def test_an_index_is_a_path_too(opened, tars, tmp_path):
    made = tmp_path / "index"
    made.mkdir()
    build_index(open_records(f"webdataset:{tars}"), made)
    assert repr(opened("train", "data.source=index", path=made)) == repr(opened("train"))
    with pytest.raises(LiditError, match=r"is an index: set config\.data\.source=index$"):
        opened("train", path=made)
    with pytest.raises(LiditError, match="holds no index: make it with lidit data index"):
        opened("train", "data.source=index")


def test_one_record_trains_and_validates(opened, tmp_path):
    write_tar(tmp_path / "one.tar", [("a", 32, "alone")])
    path = tmp_path / "one.tar"
    sources = [opened(split, path=path) for split in ("train", "heldout")]
    assert [(len(source), source.caption(0)) for source in sources] == [(1, "alone")] * 2


def test_several_caption_columns_have_to_be_chosen_from(tiny_config, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = '{"file_name": "a.png", "short": "a", "long": "a long one"}\n'
    (tmp_path / "metadata.jsonl").write_text(lines)
    made = tmp_path / "index"
    made.mkdir()
    build_index(open_records(f"folder:{tmp_path}"), made)

    def caption(*overrides):
        config = tiny_config("data.source=index", f"data.path={made}", *overrides)
        return open_image_source(config, "train").caption(0)

    with pytest.raises(LiditError, match=r"captions.columns to one of long, short$"):
        caption()
    with pytest.raises(LiditError, match=r"captions.columns='x': .* has long, short$"):
        caption("data.captions.columns=('x',)")
    assert caption("data.captions.columns=('short',)") == "a"


def test_a_source_without_a_usable_record_is_refused(opened, tmp_path):
    write_tar(tmp_path / "none.tar", [("a", 32, "")])
    with pytest.raises(LiditError, match=r"no (record|captions)"):
        opened("train", path=tmp_path / "none.tar")


@pytest.mark.parametrize("source", sorted({"index", *FORMATS} - {"folder", "emoji"}))
def test_a_path_is_needed(tiny_config, source):
    with pytest.raises(LiditError, match=r"config\.data\.path is empty: name what to read"):
        open_image_source(tiny_config(f"data.source={source}"), "train")


def test_pictures_are_decoded_as_everywhere(opened):
    train = opened("train")
    assert all(len(np.unique(train[i]["image"][..., 0])) == 1 for i in range(3))


def test_a_data_set_of_the_hub_trains(tiny_config, tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(image, "PNG")
    rows = {"image": [{"bytes": image.getvalue(), "path": "a.png"}], "text": ["a red one"]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    files = {"data/a.parquet": (tmp_path / "a.parquet").read_bytes()}
    settings = ("data.source=parquet", "data.path=hf://datasets/somebody/one")
    with fake_hub.serve("somebody/one", files):
        config = tiny_config(*settings, f"data.cache_dir={tmp_path / 'cache'}")
        assert open_image_source(config, "train")[0]["caption"] == "a red one"
