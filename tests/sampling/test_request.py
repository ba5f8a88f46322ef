"""What may be asked for an image, and in which forms."""

import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.sampling.request import image_requests

TEXTS = ["a star", "a cross"]


def asked(prompts=TEXTS, seed=3, guidance=2.0, **fields):
    return image_requests(prompts, seed=seed, guidance=guidance, **fields)


@pytest.mark.parametrize(
    "prompts", [TEXTS, tuple(TEXTS), np.array(TEXTS), (text for text in TEXTS)], ids=type
)
def test_prompts_are_anything_with_an_order(prompts):
    requests = asked(prompts)
    assert [request.prompt for request in requests] == TEXTS
    assert {type(request.prompt) for request in requests} == {str}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("prompt", ["a star", np.str_("a star"), np.array("a star")], ids=type)
def test_one_text_is_one_prompt(prompt):
    (request,) = asked(prompt)
    assert request.prompt == "a star"


def test_numbers_may_be_numpys_and_are_pythons_afterwards():
    fields = {"blend_with": "a moon", "blend": np.float32(0.5), "variation": np.float64(0.25)}
    requests = asked(seed=np.int64(3), guidance=np.float32(1.5), **fields)
    assert [request.seed for request in requests] == [3, 4]
    each = asked(seed=np.array([9, 7]), guidance=np.array([1, 2], np.float32))
    assert [(request.seed, request.guidance) for request in each] == [(9, 1.0), (7, 2.0)]
    for request in (*requests, *each):
        # PNGs remember them as they print: "3", not "np.int64(3)".
        assert {type(value) for value in vars(request).values()} <= {str, int, float}


def test_seeds_count_up_and_round():
    assert [request.seed for request in asked(seed=2**32 - 1)] == [2**32 - 1, 0]


MISTAKES = {
    "nothing": ({"prompts": None}, "prompts=None: must be a string"),
    "a number": ({"prompts": 5}, "prompts=5: must be a string"),
    "a number among texts": ({"prompts": ["a", 5]}, "prompts=5: must be a string"),
    "bytes": ({"prompts": b"a star"}, "prompts=b'a star': must be a string"),
    "a dictionary": ({"prompts": {"a": 1}}, "prompts is a dict, which has no order: give a list"),
    "a table": ({"prompts": np.array([TEXTS, TEXTS])}, "prompts=array.*must be a string"),
    "no prompt": ({"prompts": (text for text in ())}, "no prompt: describe an image"),
    "seed of none": ({"seed": None}, r"seed=None: give a number.*random\.randrange\(2\*\*32\)"),
    "seed of a fraction": ({"seed": 1.5}, "seed=1.5: must be a whole number"),
    "seed of truth": ({"seed": True}, "seed=True: must be a whole number"),
    "large seed": ({"seed": np.int64(2**32)}, "seed 4294967296: must be from 0 to 4294967295"),
    "seed of an image": ({"seed": [1, -1]}, "seed -1: must be from 0 to 4294967295"),
    "guidance in words": ({"guidance": "high"}, "guidance='high': must be a number"),
    "guidance of nothing": ({"guidance": float("nan")}, "guidance nan: must be 0 or greater"),
    "negative prompt": ({"negative_prompt": 3}, "negative_prompt=3: must be a string"),
    "too few": ({"variation": [0.1]}, "1 values of variation for 2 prompts: give one each"),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(("fields", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(fields, expected):
    with pytest.raises(LiditError, match=expected) as error:
        asked(**fields)
    assert "\n" not in str(error.value)


def test_texts_are_remembered_as_they_are_read():
    (request,) = asked("\ufeffa red\u2028circle\n", negative_prompt="cafe\u0301 ", blend_with=" a")
    texts = request.prompt, request.negative_prompt, request.blend_with
    assert texts == ("a red circle", "café", "a")
    with pytest.raises(LiditError, match=r"negative_prompt: 'a \\ud83d' contains half of a char"):
        asked(negative_prompt="a \ud83d")
