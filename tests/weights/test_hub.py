"""Uploads to a hub that runs here."""

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.weights.hub import check_token, download, upload
from tests.fake_hub import Repository, receive

TOKEN = "hf_of_a_test"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n# a model\n")
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    (tmp_path / "notes.txt").write_text("of the author alone")
    return tmp_path


FILES = ("README.md", "model.safetensors", "vae/config.json")


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with receive(TOKEN) as repositories:
        yield repositories


def test_a_new_repository_gets_the_files_and_nothing_else(hub, folder):
    check_token()
    address = upload(folder, FILES, "org/model", private=True)
    assert address.endswith("/org/model")
    assert hub["org/model"].private
    assert hub["org/model"].files == {name: (folder / name).read_bytes() for name in FILES}


def test_an_existing_one_gets_them_again(hub, folder):
    hub["org/model"] = Repository(private=False)
    upload(folder, FILES, "org/model", private=False)
    assert sorted(hub["org/model"].files) == sorted(FILES)


def test_files_of_other_weights_are_deleted_there_and_the_author_s_own_stay(hub, folder):
    older = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "vae/old.json")
    own = ("LICENSE", "images/mine.png", "lora/model.safetensors")
    hub["org/model"] = Repository(False, dict.fromkeys((*older, *own, *FILES), b"old"))
    upload(folder, FILES, "org/model", private=False, contents={"README.md": b"another"})
    sent = hub["org/model"].files
    assert sorted(sent) == sorted((*own, *FILES))
    assert sent["model.safetensors"] == bytes(100)
    assert sent["README.md"] == b"another"


@pytest.mark.parametrize("name", ["a--b/c", "my..dir/x"])
def test_a_name_that_the_hub_forbids_is_told_in_one_line(name):
    with pytest.raises(LiditError, match=r"^\S+ is neither a folder here nor a name .* spelling$"):
        download(name, ["config.json"])


def test_what_shall_be_private_does_not_go_where_everyone_reads(hub, folder):
    hub["org/model"] = Repository(private=False)
    with pytest.raises(LiditError, match=r"/org/model exists and is public: leave out --private"):
        upload(folder, FILES, "org/model", private=True)
    assert hub["org/model"].files == {}


def test_a_token_that_may_not_write_is_told(hub, folder, monkeypatch):
    with pytest.raises(LiditError, match=r"others/model: the hub refuses .* \(HTTP 403\): run"):
        upload(folder, FILES, "others/model", private=False)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(LiditError, match=r"org/model: the hub refuses .* \(HTTP 401\): run"):
        upload(folder, FILES, "org/model", private=False)


def test_a_hub_that_is_away_is_told_in_one_line(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:9")
    with pytest.raises(LiditError, match=r"^org/model: the hub cannot be reached \(.*again$"):
        upload(folder, FILES, "org/model", private=False)


def test_a_machine_without_a_token_is_told_before_anything_is_done(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(LiditError, match="there is no token of huggingface"):
        check_token()
