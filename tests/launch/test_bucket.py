"""`lidit train` writes to mounted folders; a URL would become a folder named "gs:"."""

import pytest

from lidit_jax.cli import main


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_url_is_refused_with_the_folder_to_use_instead(scheme, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config=demo", f"--workdir={scheme}://bucket/runs/first"]) == 2
    shown = capsys.readouterr().err
    assert f"--workdir={scheme}://bucket/runs/first: buckets are used through" in shown
    assert "--workdir=/gcs/bucket/runs/first" in shown
    assert list(tmp_path.iterdir()) == []
