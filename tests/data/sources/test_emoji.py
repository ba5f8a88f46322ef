"""Emoji of the font that is installed; without it, what is said of other files."""

import io

import pytest
from fontTools.fontBuilder import FontBuilder
from PIL import Image

from lidit_jax.data.sources import emoji
from lidit_jax.data.sources.emoji import Emoji
from lidit_jax.data.sources.protocol import Place
from lidit_jax.errors import LiditError


@pytest.fixture(scope="module")
def installed():
    """The emoji of the installed font."""
    source = Emoji()
    try:
        source.shards()
    except LiditError as error:
        pytest.skip(str(error))
    return source


def test_every_picture_of_the_font_is_read_once(installed, same_when_read, scanned):
    rows = same_when_read(installed)
    assert len(rows) > 3000
    images = [image for _, _, image in scanned(installed)]
    assert len(set(images)) == len(images)
    for image in images[::500]:
        assert Image.open(io.BytesIO(image)).size == (136, 128)
    assert all(row[2].keys() == {"en", "zh"} for row in rows)


def test_names_in_both_languages(installed, same_when_read):
    captions = {row[1]: row[2] for row in same_when_read(installed)}
    assert captions["1f431"] == {"en": "cat face", "zh": "猫脸"}
    assert captions["1f44d-1f3fd"] == {
        "en": "thumbs up, medium skin tone",
        "zh": "拇指向上：中等肤色",
    }
    assert captions["1f1f3-1f1f4"] == {"en": "flag of Norway", "zh": "挪威旗"}
    assert captions["1f468-200d-1f692"]["en"] == "man firefighter"
    assert captions["23-fe0f-20e3"]["en"] == "keycap #"
    assert "1f1e7-1f1fb" not in captions, "Bouvet Island has the flag of Norway"


def test_what_is_left_out_is_counted(installed):
    words = installed.left_out().split()
    assert int(words[0]) > 0
    assert "emoji with the image of another" in installed.left_out()


def test_an_emoji_that_the_font_lacks_is_named(installed):
    with pytest.raises(LiditError, match=r"no longer holds 1: index it again"):
        installed.read(Place(emoji.FONT, "1", 0, 0))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "font.ttf"
    with pytest.raises(LiditError, match=r"does not exist: name the file NotoColorEmoji\.ttf"):
        Emoji(str(path)).shards()
    path.write_bytes(b"no font")
    source = Emoji(str(path))
    with pytest.raises(LiditError, match="is no font, or a damaged one: install"):
        list(source.scan(source.shards()[0]))
    builder = FontBuilder(1024)
    builder.setupGlyphOrder([".notdef"])
    builder.setupCharacterMap({})
    builder.save(path)
    source = Emoji(str(path))
    with pytest.raises(LiditError, match=r"holds drawings, no bitmaps \(CBDT\)"):
        list(source.scan(source.shards()[0]))
    with pytest.raises(LiditError, match="this must be a local path"):
        Emoji("gs://bucket/font.ttf")


def test_without_the_font_the_package_is_named(monkeypatch):
    monkeypatch.setattr(emoji, "_FOLDERS", ())
    with pytest.raises(LiditError, match="apt install fonts-noto-color-emoji, or name its file"):
        Emoji().shards()


def test_without_the_packages_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(emoji.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LiditError, match=r"needs emoji: pip install 'lidit-jax\[emoji\]'"):
        Emoji()
