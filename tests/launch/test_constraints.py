"""`launch/constraints.txt` names every package that a machine of a run gets."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def _needed(package: str, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """What an installed package asks for on this platform; nothing of one that is not installed."""
    try:
        wanted = map(Requirement, metadata.requires(package) or ())
    except metadata.PackageNotFoundError:
        return set()
    return {
        (canonicalize_name(one.name), frozenset(one.extras))
        for one in wanted
        if one.marker is None or any(one.marker.evaluate({"extra": name}) for name in (*extras, ""))
    }


def test_every_package_of_a_run_is_pinned(repository):
    lines = (repository / "launch" / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    new, seen = {("lidit-jax", frozenset({"tpu", "gcs", "s3"}))}, set()
    while new:
        seen |= new
        new = set().union(*(_needed(*one) for one in new)) - seen
    names = {name for name, _ in seen} - {"lidit-jax"}
    assert len(names) > 50
    assert names <= pinned
