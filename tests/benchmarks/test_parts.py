"""The parts of `lidit bench all`: in order of worth, and short enough for the minutes."""

import json

from lidit_jax.benchmarks.part import PARTS
from lidit_jax.benchmarks.parts import device_part, ordered_parts
from lidit_jax.hardware.topologies import GIB

H100 = {"platform": "gpu", "device": "NVIDIA H100 80GB HBM3", "memory": 71.6 * GIB}
MUST = ["attention", "step_256", "step_1024"]


def test_what_must_be_measured_comes_first_and_the_first_step_fits_into_four_minutes():
    parts = ordered_parts(H100, None, tiny=False)
    assert [part.name for part in parts][: len(MUST)] == MUST
    # The device is told in some seconds, its limit is for those that hang.
    worst = device_part(tiny=False).limit * 0.25 + sum(part.limit for part in parts[:2])
    assert worst + parts[2].least <= 237, "even then there is time to begin the next one"
    assert all(part.least <= part.limit for part in parts)


def test_every_command_is_a_known_part_with_the_device_in_it():
    *measured, doctor = ordered_parts(H100, None, tiny=False)
    assert doctor.command[-2:] == ["lidit_jax.cli", "doctor"]
    for part in measured:
        *_, name, settings, facts = part.command
        assert name in PARTS
        assert facts == "FACTS"
        given = json.loads(settings)
        assert (given["platform"], given["device"]) == ("gpu", H100["device"])


def test_the_tests_are_those_with_the_mark(tmp_path):
    (tmp_path / "test_one.py").write_text("@pytest.mark." + "gpu\ndef test(): ...")
    (tmp_path / "test_two.py").write_text("def test(): ...")
    (part,) = [p for p in ordered_parts(H100, tmp_path, tiny=False) if p.name == "tests"]
    given = json.loads(part.command[-2])
    assert given["tests"] == [str(tmp_path / "test_one.py")]
    assert given["platforms"] == "cuda,cpu"
    without = ordered_parts(H100, tmp_path / "nothing", tiny=False)
    assert [p.command for p in without if p.name == "tests"] == [["true"]]


def test_a_device_without_memory_for_a_step_costs_its_rows():
    parts = ordered_parts(H100 | {"memory": 4 * GIB}, None, tiny=False)
    (step,) = [part for part in parts if part.name == "step_256"]
    assert step.command[0] == "sh"
    assert "do not fit" in step.command[-1]


def test_nothing_known_of_the_device_leaves_all_parts():
    names = [part.name for part in ordered_parts({}, None, tiny=False)]
    assert names[: len(MUST)] == MUST
    assert [part.name for part in ordered_parts({}, None, tiny=True)][1] == "step_tiny"
