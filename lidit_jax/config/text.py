"""Decoding of users' text files and strings, the same for prompts and captions.

An exported PyTorch model carries a copy of this file, so it imports only the standard library.
"""

import re
import unicodedata

_BYTE_ORDER_MARK = "\ufeff"
# Control characters do not describe an image; those that break lines or columns are white space.
_GAPS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return one line of normalized text, so that texts that look the same give the same image.

    Characters are composed (Unicode NFC), byte order marks are left out, and each run of white
    space, line breaks of every kind or control characters is one space, or nothing at the ends.
    """
    gaps_closed = _GAPS.sub(" ", text.replace(_BYTE_ORDER_MARK, ""))
    return unicodedata.normalize("NFC", gaps_closed).strip(" ")


def broken_characters(text: str) -> str:
    """Return the lone surrogates of a text: halves of characters, which cannot be encoded.

    JSON and command lines can hold them, where a text was cut in the middle of a character or is
    not UTF-8.
    """
    return "".join(_SURROGATE.findall(text))


def split_lines(content: bytes) -> list[str]:
    r"""Split a UTF-8 file into lines at "\n" or "\r\n" only, without byte order marks.

    Other separators, such as U+2028, may occur inside a line of JSON or a prompt.

    Raises:
      UnicodeDecodeError: when the file is not UTF-8.
    """
    lines = content.decode("utf-8").split("\n")
    return [line.removesuffix("\r").lstrip(_BYTE_ORDER_MARK) for line in lines]
