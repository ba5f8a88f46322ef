"""The LI-DiT network (paper, figure 5)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float, PyTree

from lidit_jax.config.schema import ModelConfig
from lidit_jax.models.dit import (
    DiTBlock,
    OutputLayer,
    PositionResBlock,
    patchify,
    rotary_positions,
    sincos_positions,
    unpatchify,
)
from lidit_jax.models.layers import Dense, SizeEmbedder, TimeEmbedder, dtype_of
from lidit_jax.models.refiner import CollaborativeRefiner, LinguisticRefiner
from lidit_jax.models.rematerialization import rematerialized
from lidit_jax.models.step_cache import CachedActivations, run_blocks

if TYPE_CHECKING:  # the name of a structure, which jaxtyping takes as text
    K = TypeVar("K")


class LIDiT(nn.Module):
    """Denoising network: noise, velocity or image from a noisy latent, a time and LLM features.

    The refiners are part of it, because their gates depend on the time: they run at every denoising
    step, while the LLM features are computed once per prompt.
    """

    config: ModelConfig
    quantization: str = "none"
    """Quantization of the blocks: see `Dense`."""

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, "B h w C"],
        t: Float[Array, " B"],
        features: PyTree[Float[Array, "B ?S ?*layers ?D"], " K"],
        masks: PyTree[Bool[Array, "B ?S"], " K"],
        prefix_lengths: Sequence[int],
        *,
        reuse: CachedActivations | None = None,
        keep: bool = False,
    ) -> Float[Array, "B h w C"] | tuple[Float[Array, "B h w C"], CachedActivations]:
        """Predict noise, velocity or image for noisy latents.

        Args:
          x_t: noisy latents; h and w are multiples of the patch.
          t: model times, 0 to 1000.
          features: hidden states [B, S_k, D_k] of each LLM, instruction tokens first, padding on
            the right; [B, S_k, n, D_k] for n of its layers.
          masks: valid tokens of each LLM.
          prefix_lengths: number of instruction tokens of each LLM, dropped after the refiners.
          reuse: cached activations of a nearby evaluation of the same prompts; the refiners and
            the middle blocks then do not run.
          keep: also return the activations to cache.

        Returns:
          The prediction, float32; exactly 0 at initialization.
        """
        config = self.config
        dtype = dtype_of(config.dtype)
        patch, width = config.patch, config.width

        # Text: refine each stream, attend across streams, drop the instruction, concatenate.
        time_embedding = TimeEmbedder(width, dtype, name="time_embedder")(t)
        if pixels := config.size_embedding:
            size = (pixels * x_t.shape[1], pixels * x_t.shape[2])
            time_embedding += SizeEmbedder(width, dtype, name="size_embedder")(size)
        if reuse is None:
            streams = [
                LinguisticRefiner(
                    *(width, config.heads, config.refiner, dtype, config.remat),
                    name=f"linguistic_refiner_{k}",
                )(features[k], masks[k], t, time_embedding, prefix_lengths[k])
                for k in range(len(features))
            ]
            refined = CollaborativeRefiner(
                config.heads, config.refiner, dtype, config.remat, name="collaborative_refiner"
            )(tuple(s.tokens for s in streams), tuple(masks), [s.condition for s in streams])
            cropped = [x[:, n:] for x, n in zip(refined, prefix_lengths, strict=True)]
            context = jnp.concatenate(cropped, axis=1)
            vectors = [s.pooled for s in streams if s.pooled is not None]
            pooled = sum(vectors[1:], start=vectors[0]) if vectors else None
        else:
            context, pooled, _ = reuse
        context_mask = jnp.concatenate(
            [m[:, n:] for m, n in zip(masks, prefix_lengths, strict=True)], axis=1
        )
        condition = time_embedding if pooled is None else time_embedding + pooled

        # Image: patches, positions, blocks, output.
        grid = (x_t.shape[1] // patch, x_t.shape[2] // patch)
        x = Dense(width, (None, "embed"), dtype, name="patch_embedder")(patchify(x_t, patch))
        rotary = None
        # The convolutions need whole images; after them, tokens may be sharded.
        x = with_logical_constraint(x, ("batch", None, None))
        if "conv" in config.position:
            x = PositionResBlock(dtype, name="position")(x, grid)
        if "sincos" in config.position:
            positions = sincos_positions(grid, width, config.sincos_extent, config.sincos_order)
            x = x + positions.astype(dtype)
        if "rope" in config.position:
            rotary = rotary_positions(grid, width // config.heads)

        x = with_logical_constraint(x, ("batch", "tokens", None))

        around = (context, context_mask, condition, rotary)
        if reuse is None and not keep:
            looped = config.scan_unroll < config.depth
            blocks = nn.scan(
                rematerialized(DiTBlock, config.remat, scanned=looped),
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True},
                # Flax infers a type from the default, 0.
                in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
                length=config.depth,
                unroll=config.scan_unroll,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, change = blocks(config, dtype, self.quantization, name="blocks")(x, *around)
        else:
            block = DiTBlock(config, dtype, self.quantization, parent=None)
            x, change = run_blocks(
                lambda layer, x: block.apply({"params": layer}, x, *around)[0],
                self.variables["params"]["blocks"],
                x,
                None if reuse is None else reuse.change,
                config.scan_unroll,
            )
        out = OutputLayer(
            patch * patch * x_t.shape[-1], dtype, config.output_modulation, name="output"
        )(x, condition)
        prediction = unpatchify(out, patch, grid)
        if not keep or change is None:
            return prediction
        return prediction, CachedActivations(context, pooled, change)
