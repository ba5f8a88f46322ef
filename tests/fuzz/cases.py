"""Command lines with files beside them, drawn at random: most of them nearly right."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lidit_jax.cli import build_parser
from lidit_jax.commands.arguments import (
    fraction,
    guidance_scale,
    image_size,
    non_negative_int,
    positive_int,
)
from lidit_jax.config.schema import Config
from lidit_jax.config.values import field_types, literal_values
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS

MODEL = "MODEL"
"""Stands for the folder of the tiny model in a command line."""
RECIPE = "RECIPE"
"""Stands for the tiny recipe."""


@dataclass(frozen=True)
class Case:
    """What is run, in a folder of its own."""

    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path in that folder."""


def _picture(format: str, mode: str, size: tuple[int, int]) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format)
    return content.getvalue()


_PICTURES = (
    _picture("PNG", "RGB", (32, 32)),
    _picture("PNG", "LA", (7, 90)),
    _picture("JPEG", "L", (40, 16)),
    _picture("GIF", "P", (1, 1)),
)
_VALUES = (
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "2",
        "3",
        "0.5",
        "-0.0",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e999999999",
    ),
    *(
        "99999999999999999999",
        "4294967295",
        "٣",
        "0x10",
        "1_000",
        "2M",
        "1e3",
        "true",
        "None",
        "()",
    ),
    *("[1, 2]", "('a', 'b')", "{'a': 1}", "(1,", "[" * 300, "1,2", "1,,2", "euler", "ddim", "cfg"),
    *(
        "16:9",
        "0:1",
        "1:99999",
        "32x32",
        "8x8",
        "0x0",
        "32x",
        "x",
        "48",
        "--",
        "-",
        "=",
        "a=b",
        "a=",
    ),
    *(
        "prompts.txt",
        "pictures",
        "start.png",
        "pictures/a.png",
        "missing",
        "missing/x.png",
        "x.png",
    ),
    *(
        "gs://",
        "http://x",
        "a\x00b",
        "\udcff",
        "\ud83d",
        "é" * 300,
        "demo",
        MODEL,
        "v5e:4x4",
        "v5p",
    ),
    *("h100:8", "scenes", "folder", "float32", "\n", "%s", "{}", "."),
)
_texts = st.one_of(
    st.sampled_from([text for text in PROBE_PROMPTS if len(text) < 300]),
    st.text(max_size=20),
    st.text(st.sampled_from("ab \n\r\t\ufeff\u2028\x00\ud83d\udcffé\u0301"), max_size=12),
)
_values = st.one_of(st.sampled_from(_VALUES), _texts, st.integers().map(str), st.floats().map(str))


def _damaged(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Files as they are, cut off, with bytes changed, or of nothing but noise."""

    def change(file: bytes, place: float, noise: bytes) -> bytes:
        at = int(place * len(file))
        return file[:at] + noise + file[at + len(noise) :]

    place = st.floats(0, 1, exclude_max=True)
    return st.one_of(
        content,
        content,
        st.builds(lambda file, at: file[: int(at * len(file))], content, place),
        st.builds(change, content, place, st.binary(max_size=4)),
        st.binary(max_size=40),
    )


def _recorded(texts: dict[str, str]) -> bytes:
    """A PNG that says how it was made."""
    content, info = io.BytesIO(), PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text.encode(errors="replace").decode())
    Image.new("RGB", (32, 32)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


_RECORD = {
    **{"prompt": "a", "seed": "0", "guidance": "2.0", "negative_prompt": "", "blend_with": ""},
    **{"blend": "0.0", "variation": "0.0", "variation_seed": "1", "checkpoint": MODEL},
    **{"checkpoint_sha256": "", "weights": "averaged", "sampler": "euler", "steps": "3"},
    **{"image_sha256": "", "strength": "1.0", "weaker_checkpoint": "", "shift": "0.0"},
    **{"images": "1", "apg_norm": "0.0", "zero_steps": "0", "cache_interval": "1"},
}
_record_file = st.builds(
    lambda changes, gone: _recorded(
        {name: text for name, text in (_RECORD | changes).items() if name not in gone}
    ),
    st.dictionaries(st.sampled_from(list(_RECORD)), _values, max_size=2),
    st.sets(st.sampled_from(list(_RECORD)), max_size=1),
)
_names = st.one_of(
    st.sampled_from(("a.png", "b.jpg", "a.txt", "../a.png", "/a.png", "", ".", "a/../a.png")),
    _texts,
)
_records = st.one_of(
    st.builds(
        lambda name, text, keys: json.dumps({keys[0]: name, keys[1]: text}),
        _names,
        st.one_of(_texts, st.none(), st.integers()),
        st.sampled_from((("file", "caption"), ("file_name", "text"), ("file", "text"), ("a", "b"))),
    ),
    st.sampled_from(("", "[]", "null", '"a"', "[" * 5000, "1" * 5000, "{}", "\ufeff", '{"a":NaN}')),
)
_listing = st.builds(
    lambda lines, end: end.join(lines).encode(errors="surrogatepass"),
    st.lists(_records, max_size=4),
    st.sampled_from(("\n", "\r\n", "\u2028")),
)
_text_file = _texts.map(lambda text: text.encode(errors="surrogatepass"))
_picture_file = _damaged(st.sampled_from(_PICTURES))
_files = st.fixed_dictionaries(
    {},
    optional={
        "prompts.txt": _damaged(_text_file),
        "start.png": _picture_file,
        "record.png": st.one_of(_record_file, _damaged(_record_file)),
        "pictures/a.png": _picture_file,
        "pictures/a.txt": _damaged(_text_file),
        "pictures/b.jpg": _picture_file,
        "pictures/b.txt": _text_file,
        "pictures/captions.jsonl": _damaged(_listing),
        "pictures/metadata.jsonl": _listing,
    },
)


def _commands() -> dict[tuple[str, ...], list[argparse.Action]]:
    """Options and operands of every command, read from the parser itself."""
    found = {}

    def walk(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> None:
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for action in inner:
            for name, child in action.choices.items():
                walk(child, (*path, name))
        if not inner:
            found[path] = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]

    walk(build_parser(), ())
    return found


def _argument(action: argparse.Action, value: str) -> str:
    if not action.option_strings:
        return value
    name = action.option_strings[-1]
    return name if action.nargs == 0 else f"{name}={value}"


_COMMANDS = _commands()
# What lets a command get to its work.
_BEGUN: dict[tuple[str, ...], tuple[str, ...]] = {
    ("sample",): (f"--checkpoint={MODEL}", "--prompt=a red circle", "--out=out"),
    ("train",): (f"--config={RECIPE}", "--workdir=run"),
    ("cache",): (f"--config={RECIPE}",),
    ("plan",): (f"--config={RECIPE}", "--topology=v5e:4x4"),
    ("bench",): ("step", f"--config={RECIPE}"),
    ("eval", "scenes"): (f"--checkpoint={MODEL}", "--out=scores"),
    ("eval", "samplers"): (f"--checkpoint={MODEL}", "--out=scores"),
    ("eval", "prompts"): ("prompts.txt", f"--checkpoint={MODEL}", "--out=out"),
    ("eval", "dpg"): ("--benchmark=.", "--out=out"),
    ("export",): (f"--checkpoint={MODEL}", "--out=out"),
    ("convert", "to-torch"): (MODEL, "out", "--no-parity"),
}
# Writing outside of the case's folder, minutes of compiling, or every recipe there is.
_LEFT_OUT = ("--compile", "--all-recipes", "--hlo", "--search")
_FOLDER = ("data.source=folder", "data.path=pictures", "data.image_size=32")


@st.composite
def _options(draw: Callable, command: tuple[str, ...]) -> tuple[str, ...]:
    actions = [a for a in _COMMANDS[command] if not set(a.option_strings) & set(_LEFT_OUT)]
    given = list(_BEGUN.get(command, ()))
    if given and draw(st.integers(0, 5)) == 0:
        given.pop(draw(st.integers(0, len(given) - 1)))
    for action in draw(st.lists(st.sampled_from(actions), max_size=4)) if actions else ():
        given.append(_argument(action, draw(_value_of(action))))
    return tuple(given)


_OF_TYPES = {
    positive_int: ("1", "2", "3"),
    non_negative_int: ("0", "7", "4294967295"),
    fraction: ("0", "0.5", "1"),
    guidance_scale: ("1", "2.5"),
    float: ("0", "1.5", "-0.5"),
    image_size: ("32", "16x32", "8x8"),
}
"""Values that options take."""


def _value_of(action: argparse.Action) -> st.SearchStrategy[str]:
    likely = {
        "prompts": ("prompts.txt",),
        "image": ("start.png", "pictures/a.png"),
        "mask": ("start.png",),
        "again": ("start.png", "record.png"),
    }.get(action.dest) or _OF_TYPES.get(action.type)
    choices = st.sampled_from([str(choice) for choice in action.choices or likely or _VALUES])
    return st.one_of(choices, choices, _values)


_FIELDS = field_types(Config)


@st.composite
def _overrides(draw: Callable) -> tuple[str, ...]:
    found = list(_FOLDER) if draw(st.booleans()) else []
    for path in draw(st.lists(st.sampled_from(list(_FIELDS)), max_size=3)):
        known = literal_values(_FIELDS[path])
        found.append(f"{path}={draw(st.sampled_from(known) if known else _values)}")
    if draw(st.integers(0, 9)) == 0:
        found.append(f"{draw(_texts)}={draw(_values)}")
    return tuple(f"--config.{text}" for text in found)


@st.composite
def cases(draw: Callable) -> Case:
    """Any command, more often one that reads texts and files."""
    often = (("sample",), ("sample",), ("sample",), ("train",), ("train",), ("plan",))
    command = draw(st.sampled_from((*often, *_COMMANDS)))
    arguments = (*command, *draw(_options(command)))
    if command in (("train",), ("cache",), ("plan",), ("bench",)):
        arguments += draw(_overrides())
    if command == ("sample",) and draw(st.integers(0, 4)) == 0:
        arguments = ("sample", "--again=record.png", "--out=x.png")
    elif command == ("sample",):
        arguments += tuple(f"--prompt={text}" for text in draw(st.lists(_texts, max_size=1)))
    return Case(arguments, draw(_files))
