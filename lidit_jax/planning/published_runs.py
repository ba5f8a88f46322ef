"""Published TPU measurements of language models and Flux by other projects, with their settings.

Sources, read at maxtext e591f30 and tpu-recipes c8cfe2f:
`maxtext/src/maxtext/configs/tpu/{v4,v5e,v5p}/` (scripts, and MFU in the READMEs, which count the
whole square of causal attention), `tpu-recipes/training/trillium/` (seconds of a step; settings in
`maxtext/benchmarks/maxtext_trillium_model_configs.py`), and MaxDiffusion's README (Flux).
"""

from __future__ import annotations

from dataclasses import dataclass

from lidit_jax.hardware.topologies import Topology, parse_topology
from lidit_jax.planning.roofline import Recomputed, Split, Work


@dataclass(frozen=True)
class PublishedRun:
    """Published step time of another project."""

    family: str
    """Hardware and kind of model: the group that is held out together."""
    name: str
    topology: Topology
    split: Split
    work: Work
    seconds: float


@dataclass(frozen=True)
class _Decoder:
    """Sizes of a decoder-only language model with gated FFN."""

    width: int
    hidden: int
    heads: int
    kv_heads: int
    layers: int
    vocabulary: int = 32_000

    def work(self, tokens: float, length: int, recomputed: Recomputed) -> Work:
        """Return the work of one step; causal attention is counted as the whole square."""
        attended = 128 * self.heads
        block = 3 * self.width * self.hidden
        block += 2 * self.width * (attended + 128 * self.kv_heads)
        parameters = self.layers * block + self.vocabulary * self.width
        square = 4.0 * self.layers * tokens * length * attended
        return Work(
            dense=2 * parameters * tokens,
            attention=square / 2,
            counted=6 * parameters * tokens + 3 * square,
            parameters=parameters,
            layers=self.layers,
            tokens=tokens,
            width=self.width,
            recomputed=recomputed,
            sums=2,
            update_bytes=28.0,
        )


_FULL = Recomputed(1.0, 1.0)
_DOTS = Recomputed(0.0, 1.0)
"""MaxText's "minimal" policy: products are kept, the attention kernel's result is not."""


def _scaled(billions: int) -> _Decoder:
    """Return MaxText's model for a `global_parameter_scale`: powers of two times 2048 channels."""
    base, rest = divmod(billions.bit_length() - 1, 3)
    wide, width, deep = 2 ** (base + (rest > 0)), 2 ** (base + (rest > 1)), 2**base
    return _Decoder(2048 * width, 7168 * wide, 16 * wide, 16 * wide, 16 * deep)


def _kept_projections(model: _Decoder, *, out: bool) -> Recomputed:
    """Return what is recomputed when q, k and v are kept (on the host), and the output if `out`."""
    ffn = 3 * model.width * model.hidden
    qkv = 128 * model.width * (model.heads + 2 * model.kv_heads)
    projection = 128 * model.width * model.heads
    again = ffn + (0 if out else projection)
    return Recomputed(again / (ffn + qkv + projection), 1.0)


_SCALED = (
    # parameters, rows per chip, tensor, recomputation, slice, {slices: MFU}
    (32, 6, 4, _DOTS, "v5p:4x4x4", {1: 0.7147, 2: 0.6943}),
    (64, 3, 4, _DOTS, "v5p:4x4x4", {1: 0.7031, 2: 0.6726}),
    (128, 1, 8, _DOTS, "v5p:4x4x8", {1: 0.6868, 2: 0.6634}),
    (128, 1, 8, _DOTS, "v5p:4x8x8", {1: 0.6883, 2: 0.5966}),
    (256, 1, 8, _DOTS, "v5p:8x8x8", {1: 0.6709, 2: 0.6299}),
    (512, 2, 8, _FULL, "v5p:8x8x8", {1: 0.6399, 2: 0.6145}),
    (1024, 2, 16, _FULL, "v5p:8x8x16", {1: 0.5535, 2: 0.5155}),
    (1024, 2, 16, _FULL, "v5p:8x16x16", {1: 0.6480, 2: 0.6083}),
    (16, 6, 1, _FULL, "v5e:16x16", {1: 0.6110, 2: 0.5937, 32: 0.5465}),
    (32, 4, 1, _FULL, "v5e:16x16", {1: 0.6686, 2: 0.6481, 32: 0.6040}),
    (64, 2, 1, _FULL, "v5e:16x16", {1: 0.5990, 2: 0.5666, 32: 0.5018}),
    (128, 1, 16, None, "v5e:16x16", {1: 0.5606, 2: 0.5582, 32: 0.4625}),
)
_V4 = (
    ("22B", _Decoder(6144, 24576, 24, 24, 48), 13, "v4:4x4x4", {1: 0.567, 8: 0.532}),
    ("52B", _Decoder(12288, 49152, 32, 32, 32), 7, "v4:4x4x12", {1: 0.560, 2: 0.589}),
)
_LLAMA_8B = _Decoder(4096, 14336, 32, 8, 32, 128_256)
_LLAMA_70B = _Decoder(8192, 28672, 64, 8, 80, 128_256)
_LLAMA2_70B = _Decoder(8192, 28672, 64, 8, 80)
_LLAMA_405B = _Decoder(16384, 53248, 128, 8, 126, 128_256)
_V6E = (
    # name, model, rows per chip, length, output projection kept (None: nothing is), slice, slices,
    # seconds
    ("Llama 8B", _LLAMA_8B, 3, 8192, True, "v6e:2x4", 1, 3.443),
    ("Llama 8B", _LLAMA_8B, 4, 8192, True, "v6e:16x16", 1, 4.546),
    ("Llama 70B", _LLAMA_70B, 2, 8192, False, "v6e:4x8", 1, 17.790),
    ("Llama 70B", _LLAMA_70B, 5, 8192, False, "v6e:16x16", 1, 42.656),
    ("Llama 2 70B", _LLAMA2_70B, 2, 4096, False, "v6e:16x16", 1, 9.052),
    ("Llama 405B", _LLAMA_405B, 1, 8192, None, "v6e:16x16", 2, 54.803),
)


def published_runs() -> list[PublishedRun]:
    """Return all published runs in a fixed order."""
    runs = [_flux()]
    for billions, rows, tensor, recomputed, name, shares in _SCALED:
        model = _scaled(billions)
        recomputed = recomputed or _kept_projections(model, out=False)
        for slices, mfu in shares.items():
            family = f"MaxText {name.partition(':')[0]}"
            runs.append(
                _maxtext(family, f"{billions}B", model, rows, recomputed, name, slices, tensor, mfu)
            )
    for label, model, rows, name, shares in _V4:
        for slices, mfu in shares.items():
            runs.append(_maxtext("MaxText v4", label, model, rows, _FULL, name, slices, 1, mfu))
    for label, model, rows, length, out, name, slices, seconds in _V6E:
        topology = parse_topology(name, slices)
        recomputed = _FULL if out is None else _kept_projections(model, out=out)
        work = model.work(float(rows * length * topology.chips), length, recomputed)
        # The 405B splits its weights over both slices; the roofline supports only replicas.
        split = Split(replica=slices, fsdp=topology.chips // slices)
        runs.append(PublishedRun("MaxText v6e", label, topology, split, work, seconds))
    return runs


def _maxtext(
    family: str,
    name: str,
    model: _Decoder,
    rows: int,
    recomputed: Recomputed,
    topology_name: str,
    slices: int,
    tensor: int,
    mfu: float,
) -> PublishedRun:
    topology = parse_topology(topology_name, slices)
    work = model.work(2048.0 * rows * topology.chips, 2048, recomputed)
    fsdp = topology.chips // slices // tensor
    seconds = work.counted / (mfu * topology.devices * topology.generation.flops)
    split = Split(replica=slices, fsdp=fsdp, tensor=tensor)
    return PublishedRun(family, name, topology, split, work, seconds)


def _flux() -> PublishedRun:
    """Return Flux-dev at 1024 px, batch 8 on four chips; 2.23e14 operations per sample, with full
    recomputation assumed."""
    tokens, width, layers, batch = 4608, 3072, 57, 8
    square = 4.0 * layers * tokens**2 * width * batch
    counted = 2.23e14 * batch
    work = Work(
        dense=counted / 3 - square,
        attention=square,
        counted=counted,
        parameters=11.9e9,
        layers=layers,
        tokens=tokens * batch,
        width=width,
        recomputed=_FULL,
        sums=2,
        update_bytes=28.0,
        # Modulation: 12 d^2 in each of 19 double blocks, 3 d^2 in each of 38 single ones.
        never_gathered=(19 * 12 + 38 * 3) * width**2,
    )
    topology = parse_topology("v5p:2x2x1")
    return PublishedRun("MaxDiffusion v5p", "Flux", topology, Split(fsdp=4), work, 1.769)
