"""Folders of this machine and of buckets, told apart by their names."""

from pathlib import Path

import pytest

from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.io import paths
from lidit_jax.io.paths import in_bucket, local_path, to_path

pytestmark = pytest.mark.output


def test_a_plain_name_is_a_path_of_this_machine():
    assert to_path("runs/demo") == Path("runs/demo")
    assert not in_bucket(to_path("runs/demo"))


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_url_is_a_path_with_the_methods_of_pathlib(scheme):
    path = to_path(f"{scheme}://bucket/runs/first")
    assert in_bucket(path)
    assert in_bucket(path / "checkpoints")
    assert str(path.parent / "second") == f"{scheme}://bucket/runs/second"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://host/runs", "name a folder, or a bucket as gs://BUCKET/… or s3://BUCKET/…"),
        ("gs:///runs", "names no bucket: write gs://BUCKET/…"),
    ],
)
def test_other_urls_are_refused(text, message):
    with pytest.raises(LiditError, match=message):
        to_path(text)


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_missing_package_is_one_line_with_the_install(
    scheme, package, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    assert main(["train", "--config=demo", f"--workdir={scheme}://bucket/run"]) == 2
    extra = {"gs": "gcs", "s3": "s3"}[scheme]
    assert capsys.readouterr().err == (
        f"lidit: error: {scheme}://bucket/run needs {package}: pip install 'lidit-jax[{extra}]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_where_only_a_disk_will_do_a_url_is_refused():
    assert local_path("torch-demo") == Path("torch-demo")
    with pytest.raises(LiditError, match="gs://bucket/x: this must be a local path"):
        local_path("gs://bucket/x")
