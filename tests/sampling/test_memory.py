"""Images that do not fit into memory are refused in one line, before or while they are drawn."""

import jax
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.sampling import memory
from lidit_jax.sampling.memory import check_memory, explain_out_of_memory


@pytest.fixture(autouse=True)
def one_gibibyte(monkeypatch):
    monkeypatch.setattr(memory, "host_memory", lambda: 2**30)


@pytest.mark.parametrize(("count", "size"), [(1, (64, 64)), (16, (2048, 2048)), (80_000, (64, 64))])
def test_what_fits_is_let_through(count, size):
    check_memory(count, size)


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (10**18, (64, 64), f"{10**18} images are too many at once: draw at most 1000000 per call"),
        (
            200_000,
            (64, 48),
            "200000 images of 48x64 pixels need more than 2 GiB of memory, this machine has "
            "1.0 GiB: draw at most 116504 per call, each time from another seed",
        ),
        (
            1,
            (10**18, 10**18),
            f"an image of {10**18}x{10**18} pixels needs more than .* GiB of memory, this machine "
            "has 1.0 GiB: draw less than 8460x8460 pixels",
        ),
    ],
)
def test_what_does_not_is_refused_with_what_would(count, size, expected):
    with pytest.raises(LiditError, match=expected):
        check_memory(count, size)


def test_what_is_advised_fits():
    check_memory(116_504, (64, 48))
    check_memory(1, (8459, 8459))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 EiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 98 GiB"),
        jax.errors.JaxRuntimeError("INTERNAL: Out of memory allocating 27648000000 bytes."),
    ],
    ids=str,
)
def test_devices_that_are_too_small_are_told_in_one_line(error):
    expected = "images of 48x64 pixels do not fit into the memory of"
    with pytest.raises(LiditError, match=expected), explain_out_of_memory((64, 48)):
        raise error


def test_other_errors_stay_as_they_are():
    error = jax.errors.JaxRuntimeError("INTERNAL: something")
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="something"),
        explain_out_of_memory((64, 48)),
    ):
        raise error
