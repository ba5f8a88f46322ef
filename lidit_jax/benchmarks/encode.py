"""Benchmark of a frozen text encoder on prompts that follow an instruction."""

from __future__ import annotations

from lidit_jax.benchmarks.workload import (
    Builder,
    Settings,
    Workload,
    synchronize_torch,
    torch_device,
)
from lidit_jax.encoders import PromptFormat, TextEncoder, TokenBatch


def _encoder(settings: Settings) -> tuple[TextEncoder, TokenBatch]:
    from lidit_jax import encoders

    encoder = encoders.load(settings.encoder, dtype=settings.dtype)
    words = " ".join(f"{count} red circles above a blue square," for count in range(40))
    return encoder, encoder.tokenize([words] * settings.batch, max_prompt_tokens=settings.tokens)


def jax_workload(settings: Settings, *, cached: bool = True) -> Workload:
    """Build our encoder's workload; with `cached`, decoders process the instruction only once."""
    import jax

    encoder, tokens = _encoder(settings)
    layer = encoder.default_layer
    prefix = encoder.prefix_cache(encoder.params, PromptFormat(), layer) if cached else None
    about = {
        "encoder": settings.encoder,
        "tokens": tokens.ids.shape[1],
        "instruction": tokens.prefix_length,
    }
    return Workload(
        lambda: jax.block_until_ready(encoder.encode(tokens, layer, prefix)),
        settings.batch,
        about=about,
    )


def torch_workload(settings: Settings, *, compiled: bool = False) -> Workload:
    """Build the workload of transformers, up to the same layer, with the instruction every time."""
    import torch
    import transformers

    encoder, tokens = _encoder(settings)
    device = torch_device()
    model = transformers.AutoModel.from_pretrained(
        encoder.folder, dtype=getattr(torch, settings.dtype)
    ).to(device)
    model.eval()
    layers = getattr(model, "layers", None)
    if layers is not None and encoder.default_layer < 0:
        # Blocks after the layer that is read are not run here either.
        del layers[len(layers) + 1 + encoder.default_layer :]
    call = torch.compile(model) if compiled else model
    ids, mask = (torch.from_numpy(a).to(device) for a in (tokens.ids, tokens.mask))

    def run() -> None:
        with torch.no_grad():
            call(input_ids=ids.long(), attention_mask=mask.long())
        synchronize_torch()

    return Workload(run, settings.batch, about={"transformers": transformers.__version__})


CANDIDATES: dict[str, Builder] = {
    "lidit-jax, instruction cached": jax_workload,
    "lidit-jax, whole sequence": lambda settings: jax_workload(settings, cached=False),
    "PyTorch, transformers": torch_workload,
    "PyTorch, transformers, compile": lambda settings: torch_workload(settings, compiled=True),
}
