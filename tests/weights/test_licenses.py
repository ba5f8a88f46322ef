"""Licenses from the table, from model cards, or unknown."""

import pytest

from lidit_jax.weights.licenses import license_of


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("smollm2", "apache-2.0"),
        ("minilm", "apache-2.0"),
        ("Qwen/Qwen3-0.6B", "apache-2.0"),
        ("qwen/qwen2.5-3b-instruct", "qwen-research"),
        ("someone/qwen3-0.6b", "unknown"),
        ("/no/such/folder", "unknown"),
        ("weights.gguf", "unknown"),
    ],
)
def test_the_table_knows_families_and_says_what_it_does_not_know(source, name):
    assert license_of(source) == name


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: my-license\n---\n", "my-license"),
        ("---\nlicense: other\n---\n", "other"),
        ("# no metadata\n", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
    ],
)
def test_the_model_s_own_card_says_it(card, name, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert license_of(str(tmp_path)) == name


def test_a_downloaded_card_goes_before_the_table(tmp_path, monkeypatch):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: other-than-before\n---\n")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda source, name: str(card) if source == "Qwen/Qwen3-0.6B" else None,
    )
    assert license_of("Qwen/Qwen3-0.6B") == "other-than-before"
    assert license_of("Qwen/Qwen3-1.7B") == "apache-2.0"
