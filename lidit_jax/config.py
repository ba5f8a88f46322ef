"""The configuration: typed, frozen, one docstring line a field; recipes override, nothing else.

`Config` is what the program reads. A recipe (`configs/*.py`) starts from `default_config()`, a
locked `ml_collections.ConfigDict` of the same fields, overrides what it wants and returns it. The
command line overrides once more (`--config.model.depth=12`), then `freeze` checks types and values
and returns a `Config`. Every choice that the paper leaves open is a field here, marked "ours".
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import json
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections

from lidit_jax.encoders.prompt import INSTRUCTION
from lidit_jax.errors import LiditError


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen text encoders, one stream each (paper, 3.1 and 5.1)."""

    sources: tuple[str, ...] = ("smollm2", "minilm")
    """Folder, file, hub id or packaged name of each encoder. The paper: LLaMA3-8B, Qwen1.5-7B."""
    layers: tuple[int, ...] = ()
    """Block whose output is used, counted from the end (-3 = third from the end), one a stream.
    Empty: -3 for decoder-only LLMs (paper, 5.1), the normed last layer for bidirectional ones."""
    instruction: str = INSTRUCTION
    """Text before every prompt (paper, 3.1). Empty: the "no instruction" ablation."""
    system_prompt: str = ""
    """First line of the layout in the paper's figures 4 and 5, which never give its content."""
    max_prompt_tokens: int = 256
    """Longest prompt, in tokens, a stream (ours). Training truncates, sampling refuses."""


@dataclass(frozen=True)
class RefinerConfig:
    """The linguistic token refiners and the collaborative refiner (paper, 3.2 and 3.3)."""

    blocks: int = 2
    """Blocks of each linguistic refiner; 2 in the paper, 0 gives the projected raw features."""
    causal: bool = False
    """Keep a causal mask in the refiner: the ablation of table 3."""
    gate: bool = True
    """Zero-initialised adaptive gates; False is the "no gate" row of table 5."""
    collaborative_blocks: int = 1
    """Blocks of the collaborative refiner; 1 in the paper, 0 is "concat only" of table 6."""
    mlp_ratio: int = 4
    """Width of the FFNs over the refiner's width (ours)."""
    feature_norm: str = "rms"
    """Per-token norm of the LLM features before projection: "rms" (ours) or "none"."""
    pool: str = "all"
    """Tokens in the pooled vector: "all" valid ones (literal reading) or those of the "prompt"."""
    pool_raw: bool = False
    """Pool the features before the norm (as HunyuanVideo's refiner does)."""
    own_time_embedder: bool = False
    """Give each refiner its own time embedder (as HunyuanVideo's) instead of the backbone's."""


@dataclass(frozen=True)
class ModelConfig:
    """The LI-DiT backbone (paper, 3.4, table 7)."""

    width: int = 1152
    """Width D of every token in backbone and refiners."""
    depth: int = 28
    """Transformer blocks L of the backbone."""
    heads: int = 16
    """Attention heads H; the head width K is width / heads."""
    patch: int = 2
    """Side of a patch, in latent pixels."""
    mlp_ratio: int = 4
    """Width of the backbone's FFN over the model width."""
    position: str = "conv"
    """How tokens learn where they are: "conv" (the paper's ResBlock after patchify), "rope",
    "sincos", "conv+rope" or "conv+sincos"."""
    qk_norm: bool = True
    """RMSNorm on queries and keys of self- and cross-attention (paper, 3.4)."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    dtype: str = "bfloat16"
    """Compute type of matmuls and activations; parameters stay float32 (paper: bf16 mixed)."""
    attention: str = "auto"
    """Attention kernel: "auto" follows the mesh's devices; "reference", "splash", "cudnn" force."""
    remat: bool = False
    """Recompute each block's activations in the backward pass."""
    scan_unroll: int = 1
    """Blocks unrolled in each iteration of the layer scan."""


@dataclass(frozen=True)
class VAEConfig:
    """The image autoencoder between pixels and latents."""

    source: str = "pixels"
    """Checkpoint of the autoencoder, "demo" for the packaged one, or "pixels" for none at all."""
    channels: int = 16
    """Latent channels C (paper: 16)."""
    width: int = 32
    """Channels of the first stage when an autoencoder is trained; later stages double it."""
    stages: int = 3
    """Stages that halve the image: 3 give the paper's 8x."""
    blocks: int = 1
    """Residual blocks a stage."""
    kl_weight: float = 1e-4
    """Weight of the KL term beside the reconstruction loss."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion process (paper, appendix A.1: DDPM, noise prediction)."""

    process: str = "ddpm"
    """ "ddpm" (paper) or "flow" (rectified flow)."""
    prediction: str = "epsilon"
    """What the network predicts: "epsilon", "v" or "x0"; under "flow", "velocity" or "x0"."""
    loss: str = ""
    """Space in which the error is measured; empty: the prediction's own space."""
    timesteps: int = 1000
    """DDPM steps T (ours)."""
    beta_start: float = 1e-4
    beta_end: float = 0.02
    time_sampling: str = "logit_normal"
    """Flow times in training: "uniform" or "logit_normal"."""
    shift: float = 1.0
    """Resolution shift of flow times: t' = s*t / (1 + (s-1)*t)."""
    caption_dropout: float = 0.1
    """Share of samples trained with the empty prompt's features, for guidance (ours)."""


@dataclass(frozen=True)
class DataConfig:
    """Images and captions."""

    source: str = "scenes"
    """ "scenes" (procedural, with known truth) or "folder" (a directory of captioned images)."""
    path: str = ""
    """Folder of images with captions, for source "folder"."""
    image_size: int = 64
    """Side of the square training images, in pixels."""
    train_records: int = 50_000
    """Scenes generated for training."""
    validation_records: int = 512
    """Held-out scenes for the validation loss."""
    language: str = "en"
    """Captions of the scenes: "en", "zh" or "both"."""
    cache_dir: str = ""
    """Where prepared features and latents live; empty: `~/.cache/lidit`."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (the paper gives only the learning rate; the rest is ours)."""

    learning_rate: float = 1e-4
    schedule: str = "constant"
    """ "constant" or "cosine" (to zero at the last step), after the warm-up."""
    warmup_steps: int = 1000
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""


@dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    task: str = "lidit"
    """ "lidit" trains the text-to-image model, "vae" the autoencoder that it can use."""
    steps: int = 500_000
    batch_size: int = 2048
    ema_decay: float = 0.9999
    """Decay of the averaged weights that sampling uses (ours)."""
    log_every: int = 50
    eval_every: int = 1000
    """Steps between validation losses (raw and averaged weights)."""
    image_every: int = 1000
    """Steps between grids of the fixed prompts."""
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    prompts: tuple[str, ...] = (
        "a red circle",
        "a blue square and a yellow triangle",
        "three green stars",
        "a purple heart to the left of an orange cross",
    )
    """Fixed prompts of the image grid."""


@dataclass(frozen=True)
class SamplingConfig:
    """Defaults of `lidit sample`, stored in each checkpoint (the paper states none)."""

    sampler: str = "ddim"
    """ "ddim" for DDPM, "euler" for flow."""
    steps: int = 50
    guidance: float = 5.0
    """Classifier-free guidance scale; 1 switches it off."""


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1 takes the devices that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    seed: int = 0
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def to_json(self) -> str:
        """The configuration as JSON, as stored in checkpoints."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The inverse of `to_json`. Raises `LiditError` for unknown or mistyped fields."""
        config = default_config()
        for path, value in _flatten(json.loads(text)):
            _set(config, path, tuple(value) if isinstance(value, list) else value)
        return freeze(config)


_CHOICES: dict[str, tuple[str, ...]] = {
    "model.position": ("conv", "rope", "sincos", "conv+rope", "conv+sincos"),
    "model.dtype": ("float32", "bfloat16"),
    "model.attention": ("auto", "reference", "splash", "cudnn"),
    "model.refiner.feature_norm": ("rms", "none"),
    "model.refiner.pool": ("all", "prompt"),
    "diffusion.process": ("ddpm", "flow"),
    "diffusion.prediction": ("epsilon", "v", "x0", "velocity"),
    "diffusion.loss": ("", "epsilon", "v", "x0", "velocity"),
    "diffusion.time_sampling": ("uniform", "logit_normal"),
    "data.source": ("scenes", "folder"),
    "data.language": ("en", "zh", "both"),
    "optimizer.schedule": ("constant", "cosine"),
    "training.task": ("lidit", "vae"),
}
_POSITIVE = (
    "model.width model.depth model.heads model.patch vae.channels vae.width vae.stages vae.blocks "
    "diffusion.timesteps data.image_size data.train_records training.steps training.batch_size "
    "training.log_every training.eval_every training.image_every training.checkpoint_every "
    "training.keep_checkpoints sampling.steps encoders.max_prompt_tokens optimizer.learning_rate"
).split()


def default_config() -> ml_collections.ConfigDict:
    """All fields at their defaults, as the locked, typed dictionary that recipes override."""
    config = ml_collections.ConfigDict(dataclasses.asdict(Config()))
    config.lock()
    return config


def freeze(config: ml_collections.ConfigDict) -> Config:
    """Checks every field and returns the frozen `Config`.

    Raises:
      LiditError: for an unknown field, a wrong type or a value out of range; names the field.
    """
    frozen = _build(Config, config.to_dict(), "")
    flat = dict(_flatten(dataclasses.asdict(frozen)))
    for path, choices in _CHOICES.items():
        if flat[path] not in choices:
            raise LiditError(f"config.{path}={flat[path]!r}: choose one of {_quoted(choices)}")
    for path in _POSITIVE:
        if flat[path] <= 0:
            raise LiditError(f"config.{path}={flat[path]!r}: must be greater than 0")
    model, encoders = frozen.model, frozen.encoders
    if model.width % model.heads:
        raise LiditError(
            f"config.model.heads={model.heads} does not divide config.model.width={model.width}"
        )
    if not encoders.sources:
        raise LiditError("config.encoders.sources is empty: name at least one text encoder")
    if encoders.layers and len(encoders.layers) != len(encoders.sources):
        raise LiditError(
            f"config.encoders.layers has {len(encoders.layers)} entries for "
            f"{len(encoders.sources)} encoders: give one a stream, or none"
        )
    return frozen


def load_recipe(recipe: str, overrides: Iterable[str] = ()) -> Config:
    """Loads `configs/NAME.py` (or a packaged recipe by name) and applies `a.b=value` overrides.

    Raises:
      LiditError: when the recipe or a field does not exist, or a value has the wrong type.
    """
    path = find_recipe(recipe)
    spec = importlib.util.spec_from_file_location(f"lidit_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise LiditError(f"recipe {path} has no get_config() function: see configs/demo.py")
    try:
        config = module.get_config()
    except (AttributeError, KeyError, TypeError) as error:
        raise LiditError(f"recipe {path}: {str(error).splitlines()[0]}") from error
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise LiditError(f"--config.{name}: write --config.{name}=VALUE")
        _set(config, name, _literal(text))
    return freeze(config)


def find_recipe(recipe: str) -> Path:
    """The file of a recipe given as a path or as the name of a packaged one."""
    package = Path(__file__).parent
    folders = (package / "recipes", package.parent / "configs")
    name = Path(recipe).name.removesuffix(".py") + ".py"
    for path in (Path(recipe), *(folder / name for folder in folders)):
        if path.is_file():
            return path
    known = sorted({p.stem for folder in folders for p in folder.glob("*.py")})
    raise LiditError(f"no recipe {recipe!r}: give a file, or one of {_quoted(known)}")


def _set(config: ml_collections.ConfigDict, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    node = config
    for i, parent in enumerate([*parents, name]):
        fields = list(node) if isinstance(node, ml_collections.ConfigDict) else []
        if parent not in fields:
            here = ".".join(["config", *parents[:i]])
            close = difflib.get_close_matches(parent, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {_quoted(fields)}"
            raise LiditError(f"{here} has no field {parent!r}: {hint}")
        if i < len(parents):
            node = node[parent]
    current = node[name]
    if isinstance(current, ml_collections.ConfigDict):
        raise LiditError(f"config.{path} is a group of fields: set one of {_quoted(list(current))}")
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if isinstance(current, str) and not isinstance(value, str):
        value = str(value)
    if type(value) is not type(current):
        raise LiditError(
            f"config.{path}={value!r} is {type(value).__name__}, "
            f"must be {type(current).__name__} (now {current!r})"
        )
    node[name] = value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    for name in values.keys() - known:
        raise LiditError(f"config.{prefix}{name} does not exist: it has {_quoted(sorted(known))}")
    built = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            built[name] = _build(hint, value, f"{prefix}{name}.")
            continue
        if isinstance(hint, types.GenericAlias):
            item = typing.get_args(hint)[0]
            if not isinstance(value, (tuple, list)) or not all(isinstance(v, item) for v in value):
                raise LiditError(f"config.{prefix}{name}={value!r} must be a tuple of {item.__name__}")
            value = tuple(value)
        elif hint is float and type(value) is int:
            value = float(value)
        elif type(value) is not hint:
            raise LiditError(f"config.{prefix}{name}={value!r} must be {hint.__name__}")
        built[name] = value
    return cls(**built)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
