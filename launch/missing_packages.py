"""Packages that lidit-jax needs and a machine lacks, one NAME==VERSION per line.

The versions are those of this environment, so that no resolver is needed:
  python launch/missing_packages.py 3.12 FILE     FILE: `pip list --format=freeze`, or bare names
  python launch/missing_packages.py --metadata    metadata of the project
"""

import re
import sys
from collections.abc import Container, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = "lidit-jax"


def main(arguments: list[str]) -> None:
    """Print the lines; exit with one line on stderr if the machine is not supported."""
    if arguments == ["--metadata"]:
        print(metadata.distribution(PROJECT).read_text("METADATA"))
        return
    python, file = arguments
    have = read_list(Path(file))
    for requirement in needs(PROJECT, python):
        version = have.get(canonical(requirement.name))
        if version and not requirement.specifier.contains(version, prereleases=True):
            sys.exit(
                f"error: {file} has {requirement.name} {version}, and {PROJECT} needs "
                f"{requirement}: install that there, or take the line out to pack it"
            )
    print("\n".join(missing(python, have)))


def canonical(name: str) -> str:
    """Return the canonical spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_list(file: Path) -> dict[str, str]:
    """Read name -> version of a `pip list --format=freeze`; an empty version for a bare name."""
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    parts = [re.split(r"==| @ ", line, maxsplit=1) for line in lines if line]
    return {canonical(name): version[0] if version else "" for name, *version in parts}


def needs(name: str, python: str, extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """Yield the requirements of a package on Linux, x86_64, for one version of Python."""
    on = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate(on | {"extra": e}) for e in ("", *extras)):
            yield requirement


def missing(python: str, have: Container[str]) -> list[str]:
    """Return the missing packages, each at this environment's version, by name.

    The requirements of a package that is installed are assumed to be installed.
    """
    found: dict[str, str] = {}
    seen = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(PROJECT, ())]
    while waiting:
        name, extras = waiting.pop()
        for requirement in needs(name, python, extras):
            key = (canonical(requirement.name), tuple(sorted(requirement.extras)))
            if key in seen or (key[0] in have and not requirement.extras):
                continue
            seen.add(key)
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                sys.exit(
                    f"error: {requirement.name}, which {name} needs, is not installed here: "
                    "run launch/quickstart.sh once"
                )
            if key[0] not in have:
                found[key[0]] = version
            waiting.append(key)
    return [f"{name}=={found[name]}" for name in sorted(found)]


if __name__ == "__main__":
    main(sys.argv[1:])
