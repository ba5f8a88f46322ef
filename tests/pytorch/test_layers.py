"""PixArt's layers against diffusers' own, with diffusers' parameters."""

import pytest
import torch
from diffusers.models.embeddings import (
    PixArtAlphaCombinedTimestepSizeEmbeddings,
    get_2d_sincos_pos_embed,
)

from lidit_jax.pytorch.layers import AdaLayerNormTable, SizeEmbedder, TimestepEmbedder, sincos_table

pytestmark = pytest.mark.numeric

TOLERANCE = 5e-5
"""Of values of about 1: float32 rounds angles, up to 912 here, at 3e-5."""


def parameters_of(module: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Parameters of one of diffusers' embedders, by the names of `TimestepEmbedder`."""
    return {f"mlp.{key}": value for key, value in getattr(module, name).state_dict().items()}


def test_time_and_size_are_embedded_as_by_diffusers():
    torch.manual_seed(0)
    theirs = PixArtAlphaCombinedTimestepSizeEmbeddings(24, 8, use_additional_conditions=True)
    time, size = TimestepEmbedder(24), SizeEmbedder(24)
    time.load_state_dict(parameters_of(theirs, "timestep_embedder"))
    size.resolution_embedder.load_state_dict(parameters_of(theirs, "resolution_embedder"))
    size.aspect_ratio_embedder.load_state_dict(parameters_of(theirs, "aspect_ratio_embedder"))
    t, height, width = torch.tensor([37.0, 912.0]), 96, 160
    resolution = torch.tensor([[height, width]] * 2)
    ratio = torch.tensor([[height / width]] * 2)
    expected = theirs(t, resolution, ratio, batch_size=2, hidden_dtype=torch.float32)
    torch.testing.assert_close(time(t) + size(height, width), expected, atol=TOLERANCE, rtol=0)


def test_sinusoids_of_the_column_come_first_in_diffusers():
    rows, columns = 2, 3
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    extents = places * (16 / torch.tensor([rows, columns]))
    expected = get_2d_sincos_pos_embed(24, (rows, columns), base_size=16)
    ours = sincos_table(extents.flip(-1), 24)
    torch.testing.assert_close(ours, expected.float(), atol=TOLERANCE, rtol=0)


def test_a_table_adds_the_condition_to_each_of_its_vectors():
    layer = AdaLayerNormTable(3, 2)
    with torch.no_grad():
        layer.scale_shift_table.copy_(torch.arange(6.0).reshape(2, 3))
    shift, scale = layer(torch.full((4, 3), 10.0))
    assert shift.tolist() == [[[10.0, 11.0, 12.0]]] * 4
    assert scale.tolist() == [[[13.0, 14.0, 15.0]]] * 4
