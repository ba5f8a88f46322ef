"""Rematerialization policies by name: what the backward pass of a block recomputes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import Primitive

from lidit_jax.attention.names import ATTENTION_OUTPUT, CUDNN_FORWARD

BLOCK_INPUT = "block_input"
"""Name (`jax.ad_checkpoint.checkpoint_name`) of the input of a block, for the policies."""
BRANCH_OUTPUT = "branch_output"
"""Name of an attention or FFN output before its gate; saving it avoids the last product."""

_POLICIES = jax.checkpoint_policies


def _cudnn_attention(primitive: Primitive, *_: Any, **__: Any) -> bool:
    """Save the results of cuDNN's forward kernel: the output and the softmax statistics.

    The statistics cannot be saved by name, because JAX computes them in its own derivative rule;
    without them the kernel would run again.
    """
    return primitive.name == CUDNN_FORWARD


def _keeping(*names: str) -> Callable[..., Any]:
    """Return a policy that saves the named values and the results of cuDNN's attention."""
    return _POLICIES.save_from_both_policies(
        _POLICIES.save_only_these_names(*names), _cudnn_attention
    )


POLICIES = {
    "full": _POLICIES.nothing_saveable,
    "dots": _POLICIES.save_from_both_policies(
        # Products with weights have no batch dimensions. Those of plain attention do: its scores
        # would be larger than everything else saved. Its output is saved by name.
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
    """Return the block with a policy of `POLICIES` applied, or unchanged for "none".

    The results do not change, only what is saved between forward and backward pass. This includes
    weights: those sharded over `fsdp` are gathered again instead of being kept gathered.

    Args:
      block: a module whose arguments are arrays.
      policy: a name in `POLICIES`, or "none".
      scanned: whether it runs inside a rolled layer scan, which already prevents the compiler from
        eliminating the recomputation.
    """
    if policy == "none":
        return block
    return nn.remat(block, prevent_cse=not scanned, policy=POLICIES[policy])
