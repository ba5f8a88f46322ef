"""A user's folder of pictures: both layouts, and every mistake names its file."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from lidit_jax.data.folder import FolderSource
from PIL import Image

from lidit_jax.errors import LiditError

RED, BLUE = (220, 30, 30), (30, 30, 220)


def save(path, color=RED, size=(40, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


@pytest.fixture
def pictures(tmp_path):
    """Two captioned pictures, one of them in a subfolder."""
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red\n square ", encoding="utf-8")
    save(tmp_path / "more" / "b.jpg", BLUE)
    (tmp_path / "more" / "b.txt").write_text("蓝色", encoding="utf-8")
    return tmp_path


def listing(folder, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")


def test_text_files_beside_the_pictures(pictures):
    source = FolderSource(pictures, size=16)
    assert [source.caption(i) for i in range(len(source))] == ["a red square", "蓝色"]
    record = source[1]
    assert record["image"].shape == (16, 16, 3)
    assert record["image"].dtype == np.uint8
    assert record["caption"] == "蓝色"
    assert record["index"] == 1
    np.testing.assert_allclose(record["image"][8, 8], BLUE, atol=3)


def test_a_jsonl_names_pictures_in_its_own_order(pictures):
    listing(
        pictures,
        {"file": "more/b.jpg", "caption": "blue"},
        "",
        {"file": "a.png", "caption": "red"},
        {"file": "a.png", "caption": "a square"},
    )
    source = FolderSource(pictures)
    assert [source.caption(i) for i in range(len(source))] == ["blue", "red", "a square"]


def test_the_center_is_cropped_not_squeezed(tmp_path):
    wide = Image.new("RGB", (90, 30), BLUE)
    wide.paste(RED, (30, 0, 60, 30))
    wide.save(tmp_path / "wide.webp", lossless=True)
    (tmp_path / "wide.txt").write_text("red")
    image = FolderSource(tmp_path, size=24)[0]["image"]
    np.testing.assert_allclose(image[:, 1:-1], np.broadcast_to(RED, (24, 22, 3)), atol=4)


def test_transparency_becomes_white_and_rotation_is_undone(tmp_path):
    Image.new("RGBA", (20, 20), (*RED, 0)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("nothing")
    upright = Image.new("RGB", (32, 32), RED)
    upright.paste(BLUE, (0, 0, 16, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    upright.save(tmp_path / "b.png", exif=exif)
    (tmp_path / "b.txt").write_text("red and blue")
    source = FolderSource(tmp_path, size=32)
    assert (source[0]["image"] == 255).all()
    assert tuple(source[1]["image"][16, 4]) == RED


def test_the_name_changes_with_the_content(pictures):
    before = repr(FolderSource(pictures))
    assert repr(FolderSource(pictures)) == before
    (pictures / "a.txt").write_text("a crimson square")
    assert repr(FolderSource(pictures)) != before


def test_a_copy_has_the_same_digests_and_an_edit_only_another_content(pictures, tmp_path_factory):
    before = FolderSource(pictures).digests()
    assert before.shape == (2, 2)
    copied = tmp_path_factory.mktemp("copies") / "copied"
    shutil.copytree(pictures, copied, copy_function=shutil.copyfile)
    np.testing.assert_array_equal(FolderSource(copied).digests(), before)
    (copied / "a.txt").write_text("a crimson square")
    recaptioned = FolderSource(copied).digests()
    save(copied / "more" / "b.jpg", RED)
    repainted = FolderSource(copied).digests()
    np.testing.assert_array_equal(recaptioned != before, [[False, True], [False, False]])
    np.testing.assert_array_equal(repainted != recaptioned, [[False, False], [False, True]])


def test_the_name_is_that_of_version_0_1_unless_pixels_have_changed(tmp_path):
    """Latents that were prepared from ordinary pictures are found again, others made anew."""

    def content_of_version_0_1(folder):
        digest = hashlib.sha256()
        for file in sorted(folder.glob("*.*g")):
            state, caption = file.stat(), file.with_suffix(".txt").read_text()
            line = [file.name, state.st_size, state.st_mtime_ns, caption]
            digest.update(json.dumps(line).encode())
        return f"content='{digest.hexdigest()[:16]}'"

    def is_named_as_before(size):
        return content_of_version_0_1(tmp_path) in repr(FolderSource(tmp_path, size))

    def add(name, picture):
        picture.save(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("text")

    add("clear.png", Image.new("RGBA", (900, 900)))
    add("large.jpg", Image.new("RGB", (300, 300)))
    assert is_named_as_before(size=80)
    assert not is_named_as_before(size=64), "300 pixels are more than four times as many"
    add("deep.png", Image.fromarray(np.zeros((9, 9), np.uint16)))
    assert not is_named_as_before(size=80)


def test_lines_of_one_picture_have_names_of_their_own(pictures):
    listing(pictures, *({"file": "a.png", "caption": text} for text in ("red", "a square")))
    assert len(np.unique(FolderSource(pictures).digests())) == 4


def refuses(folder, *words):
    with pytest.raises(LiditError) as error:
        FolderSource(folder)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_or_empty_folder(tmp_path):
    refuses(tmp_path / "nowhere", "nowhere", "not a folder")
    refuses(tmp_path, str(tmp_path), "no captioned picture")
    listing(tmp_path, "")
    refuses(tmp_path, "no captioned picture")


def test_a_missing_an_empty_and_an_undecodable_caption(pictures):
    save(pictures / "c.png")
    refuses(pictures, "c.png", "c.txt")
    (pictures / "c.txt").write_text(" \n")
    refuses(pictures, "c.txt", "empty")
    (pictures / "c.txt").write_bytes(b"\xff\xfe\xff")
    refuses(pictures, "c.txt", "UTF-8")


def test_a_picture_that_is_none_is_found_at_once(pictures):
    (pictures / "c.png").write_bytes(b"not a picture")
    (pictures / "c.txt").write_text("text")
    refuses(pictures, "c.png", "not a readable image")


def test_a_truncated_picture_is_named_when_it_is_decoded(pictures):
    whole = save(pictures / "c.png", size=(300, 300)).read_bytes()
    (pictures / "c.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "c.txt").write_text("half")
    source = FolderSource(pictures)
    broken = [source.caption(i) for i in range(len(source))].index("half")
    with pytest.raises(LiditError, match=r"c\.png"):
        source[broken]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", ("line 2", "not JSON")),
        ({"file": "a.png"}, ("line 2", "caption")),
        ({"file": "a.png", "caption": " "}, ("line 2", "caption")),
        (["a.png", "red"], ("line 2", "caption")),
        ({"file": "gone.png", "caption": "x"}, ("line 2", "gone.png", "does not exist")),
    ],
)
def test_a_bad_line_is_named_by_its_number(pictures, line, words):
    listing(pictures, {"file": "a.png", "caption": "red"}, line)
    refuses(pictures, "captions.jsonl", *words)


def test_all_mistakes_are_told_at_once(pictures):
    save(pictures / "c.png")
    (pictures / "more" / "b.txt").write_text("")
    (pictures / "a.png").write_bytes(b"text")
    refuses(
        pictures, f"3 problems in {pictures}: c.png has no caption", "more/b.txt is", "a.png is"
    )
    listing(pictures, "{broken", {"file": "gone.png", "caption": "x"})
    refuses(pictures, "2 problems", "captions.jsonl, line 1: not JSON", "line 2: gone.png does not")


def test_pictures_of_all_kinds_train_and_others_are_counted(pictures):
    for suffix in ("avif", "bmp", "tif", "gif"):
        save(pictures / f"{suffix}.{suffix}", RED)
        (pictures / f"{suffix}.txt").write_text("red")
    (pictures / "x.heic").touch()
    source = FolderSource(pictures, 16)
    assert len(source) == 6
    assert source.left_out == "1 .heic (x.heic)"
    for i in range(len(source)):
        if source.caption(i) == "red":
            # Of AVIF's brightness and two colors each is a rounded number, as in a JPEG.
            np.testing.assert_allclose(source[i]["image"][8, 8], RED, atol=4)


def test_a_large_picture_beyond_all_limits_is_one_problem(pictures, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 20)
    refuses(pictures, "2 problems", "a.png has 0.00", " megapixels, the limit is 0.0008")


def test_a_size_that_the_autoencoder_cannot_halve(pictures):
    with pytest.raises(LiditError, match="multiple of 8"):
        FolderSource(pictures, size=30)
