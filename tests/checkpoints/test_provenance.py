"""What a model was trained with: its stored form comes back."""

import json

import pytest

from lidit_jax.checkpoints.provenance import Provenance

STORED = {
    "encoders": [{"source": "minilm", "layer": -1, "fingerprint": {"weights": "ab"}, "prefix": ""}],
    "prefix_lengths": [26],
    "autoencoder": "pixels",
    "latents": {"mean": [0.1, 1e-7], "std": [0.5, 0.4]},
    "step": 8,
}
"""As format 3 writes it, in this order."""


def test_the_stored_form_comes_back():
    provenance = Provenance.from_json(STORED)
    assert provenance.prefix_lengths == (26,)
    assert (provenance.latent_mean, provenance.latent_std) == ((0.1, 1e-7), (0.5, 0.4))
    assert provenance.step == 8
    assert provenance.layer_counts == (1,)
    two = STORED | {"encoders": [STORED["encoders"][0] | {"layer": [-1, 2]}]}
    assert Provenance.from_json(two).layer_counts == (2,)
    assert json.dumps(provenance.to_json()) == json.dumps(STORED)
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance


@pytest.mark.parametrize("stored", [{}, {"step": 8}])
def test_an_autoencoder_has_none(stored):
    assert Provenance.from_json(stored).to_json() == stored


def test_it_is_found_in_a_whole_description():
    assert Provenance.from_json({"format": 3, "config": {}} | STORED).to_json() == STORED


@pytest.mark.parametrize("name", ["encoders", "prefix_lengths", "autoencoder", "latents"])
def test_a_lost_part_is_named(name):
    with pytest.raises(KeyError, match=name):
        Provenance.from_json({k: v for k, v in STORED.items() if k != name})


@pytest.mark.parametrize("name", ["source", "layer", "fingerprint", "prefix"])
def test_a_lost_part_of_a_stream_is_named(name):
    (stream,) = STORED["encoders"]
    less = {key: value for key, value in stream.items() if key != name}
    with pytest.raises(KeyError, match=name):
        Provenance.from_json(STORED | {"encoders": [less]})


def test_parts_of_other_lengths_are_told():
    with pytest.raises(ValueError, match="1 encoders with 2 prefix lengths"):
        Provenance.from_json(STORED | {"prefix_lengths": [26, 26]})


@pytest.mark.parametrize("known", [STORED, {}], ids=["text-to-image", "autoencoder"])
def test_what_a_later_version_adds_is_kept(known):
    stored = known | {"palette": {"colors": 3}}
    provenance = Provenance.from_json(stored)
    assert provenance.more == {"palette": {"colors": 3}}
    assert provenance.to_json() == stored
