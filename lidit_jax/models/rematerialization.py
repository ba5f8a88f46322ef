"""What the backward pass of a block recomputes instead of remembering: policies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import Primitive

from lidit_jax.attention.names import ATTENTION_OUTPUT, CUDNN_FORWARD

BLOCK_INPUT = "block_input"
"""Name that `jax.ad_checkpoint.checkpoint_name` gives to what enters a block, for the policies."""
BRANCH_OUTPUT = "branch_output"
"""What an attention or FFN gives, before its gate: its last product is not run again when kept."""

_POLICIES = jax.checkpoint_policies


def _cudnn_attention(primitive: Primitive, *_: Any, **__: Any) -> bool:
    """Keeps what cuDNN's forward kernel gives: its output, and the sums that its backward reads.

    A name cannot keep the sums, as JAX makes them inside of its own derivative; without them the
    kernel would run again.
    """
    return primitive.name == CUDNN_FORWARD


def _keeping(*names: str) -> Callable[..., Any]:
    """Keeps these names, and what cuDNN's attention gives."""
    return _POLICIES.save_from_both_policies(
        _POLICIES.save_only_these_names(*names), _cudnn_attention
    )


POLICIES = {
    "full": _POLICIES.nothing_saveable,
    "dots": _POLICIES.save_from_both_policies(
        # Products of weights have no batch dimensions; those of plain attention do, and its scores
        # would outweigh all else that a block keeps. What attention gives is kept by name.
        _POLICIES.dots_with_no_batch_dims_saveable,
        _keeping(ATTENTION_OUTPUT),
    ),
    "branches": _keeping(ATTENTION_OUTPUT, BRANCH_OUTPUT),
    "attention": _keeping(ATTENTION_OUTPUT),
    "offload": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def rematerialized(
    block: type[nn.Module], policy: str, *, scanned: bool = False
) -> type[nn.Module]:
    """The block under one of `POLICIES`, or itself for "none".

    The numbers do not change; only what is kept between forward and backward pass does. That goes
    for weights too: those that `fsdp` splits are gathered again instead of being kept whole.

    Args:
      block: a module whose arguments are arrays.
      policy: a name in `POLICIES`, or "none".
      scanned: whether a layer scan with a loop runs it, which already keeps the compiler from
        undoing the recomputation.
    """
    if policy == "none":
        return block
    return nn.remat(block, prevent_cse=not scanned, policy=POLICIES[policy])
