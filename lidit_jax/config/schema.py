"""Configuration of a run: typed, frozen dataclasses with a text for each field.

`Config` is what the program reads. A recipe (`configs/*.py`) starts from
`lidit_jax.config.load.default_config()`, a locked `ml_collections.ConfigDict` of the same fields,
overrides some of them and returns it. The command line overrides once more
(`--config.model.depth=12`), then `freeze` checks types and values and returns a `Config`. Every
choice that the paper leaves open is a field here, marked "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lidit_jax.config.build import Storable
from lidit_jax.config.data_config import DataConfig
from lidit_jax.config.prompt_format import INSTRUCTION
from lidit_jax.config.values import (
    ComputeType,
    Decay,
    Fraction,
    LayerChoice,
    NotNegative,
    Positive,
    Seed,
    Space,
    StorageType,
)


@dataclass(frozen=True)
class EncoderConfig:
    """Frozen text encoders, one feature stream per encoder (paper, 3.1 and 5.1)."""

    sources: tuple[str, ...] = ("smollm2", "minilm")
    """Folder (also of a diffusers pipeline), file, hub id or packaged name of each encoder. The
    paper: LLaMA3-8B, Qwen1.5-7B."""
    layers: tuple[LayerChoice, ...] = ()
    """Layers whose output is used, one entry per stream: a layer counted from the end (-3 = third
    from the end), a tuple of several, or "all" transformer blocks; `model.refiner.layer_mix`
    combines several. Empty: -3 for decoder-only LLMs (paper, 5.1), the normalized last layer for
    bidirectional ones."""
    dtype: StorageType = "float32"
    """Storage type of the frozen weights; "int8" for linear maps, the rest in bfloat16 (ours)."""
    instruction: str = INSTRUCTION
    """Text before every prompt (paper, 3.1), cleaned as prompts are. Empty: the "no instruction"
    ablation."""
    system_prompt: str = ""
    """First line of the layout in the paper's figures 4 and 5, which never give its content."""
    lowercase: bool = False
    """Turn prompts and captions into lower case, as PixArt's pipelines do (ours)."""
    max_prompt_tokens: Positive[int] = 256
    """Longest prompt, in tokens per stream (ours). Training truncates, sampling refuses."""


@dataclass(frozen=True)
class RefinerConfig:
    """Linguistic token refiners and the collaborative refiner (paper, 3.2 and 3.3)."""

    blocks: NotNegative[int] = 2
    """Blocks of each linguistic refiner; 2 in the paper, 0 gives the projected raw features."""
    causal: bool = False
    """Use a causal mask in the refiner: the ablation of table 3."""
    gate: bool = True
    """Zero-initialized adaptive gates; False is the "no gate" row of table 5."""
    collaborative_blocks: NotNegative[int] = 1
    """Blocks of the collaborative refiner; 1 in the paper, 0 is "concat only" of table 6."""
    mlp_ratio: Positive[int] = 4
    """Ratio of the FFNs' hidden width to the refiner's width (ours)."""
    feature_norm: Literal["rms", "none"] = "rms"
    """Normalization of each token's LLM features before projection (ours)."""
    layer_mix: Literal["concatenate", "average", "learned_average"] = "concatenate"
    """Combination of several `encoders.layers` of a stream (ours): "concatenate" along the width,
    or the "average" of the layers, each layer-normalized per token (arXiv 2506.08210);
    "learned_average" trains its weights, the softmax of one parameter per layer."""
    pool: Literal["all", "prompt", "none"] = "all"
    """Tokens in the pooled vector: "all" valid ones (literal reading) or those of the "prompt".
    "none": no pooled vector, all conditions are the time embedding alone (ours, for PixArt)."""
    pool_raw: bool = False
    """Pool the features before their normalization (as HunyuanVideo's refiner does)."""
    own_time_embedder: bool = False
    """Give each refiner its own time embedder (as HunyuanVideo does) instead of the backbone's."""
    projection: Literal["linear", "mlp"] = "linear"
    """Projection of the features to the refiner's width: "linear", or "mlp" for two layers with a
    GELU between them (ours, for PixArt's caption projection)."""


@dataclass(frozen=True)
class ModelConfig:
    """LI-DiT backbone (paper, 3.4, table 7)."""

    width: Positive[int] = 1152
    """Width D of every token in backbone and refiners."""
    depth: Positive[int] = 28
    """Number of transformer blocks L of the backbone."""
    heads: Positive[int] = 16
    """Number of attention heads H; the head width K is width / heads."""
    patch: Positive[int] = 2
    """Side of a patch, in latent pixels."""
    mlp_ratio: Positive[int] = 4
    """Ratio of the FFN's hidden width to the width of the backbone."""
    position: Literal["conv", "rope", "sincos", "conv+rope", "conv+sincos"] = "conv"
    """Position encoding: "conv" is the paper's ResBlock after patchify, "rope" rotates queries and
    keys, "sincos" adds fixed embeddings; or two of them. The paper does not detail the ResBlock;
    ours is pre-activation: RMSNorm, SiLU and a 3x3 convolution, twice, plus the input."""
    sincos_extent: NotNegative[float] = 0.0
    """Number of positions that each side of an image spans under "sincos", whatever its number of
    tokens; 0 for one position per token (ours, for PixArt: base size / interpolation scale)."""
    sincos_order: Literal["row_first", "column_first"] = "row_first"
    """Coordinate in the first half of the channels under "sincos" (ours; DiT and PixArt put the
    column first)."""
    qk_norm: bool = True
    """RMSNorm on queries and keys of self- and cross-attention (paper, 3.4)."""
    cross_attention: Literal["modulated", "plain"] = "modulated"
    """Cross-attention of a block: "modulated" by a norm, scale, shift and gate as all its branches
    (paper, figure 5), or "plain": without them, so that a block has six adaLN vectors instead of
    nine (ours, for PixArt)."""
    output_modulation: Literal["linear", "table"] = "linear"
    """Scale and shift of the output layer: a "linear" map of the condition as in the blocks, or the
    sum of the condition and a learned "table" of two vectors (ours, for PixArt)."""
    size_embedding: NotNegative[int] = 0
    """Image pixels per latent pixel, to add embeddings of an image's height, width and height/width
    to the time embedding; 0 for none (ours, for PixArt-alpha at 1024 px). Needs a width that is a
    multiple of 3."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    dtype: ComputeType = "bfloat16"
    """Compute type of matmuls and activations; parameters stay float32 (paper: bf16 mixed)."""
    remat: Literal["none", "full", "dots", "branches", "attention", "offload"] = "none"
    """What the backward pass of a block recomputes, in the refiners too. "full": all; "dots": all
    but matmuls with weights and attention; "branches": all but attention and the outputs of the
    branches; "attention": all but attention; "offload": as "full", with the inputs of the
    backbone's blocks offloaded to host memory."""
    scan_unroll: Positive[int] = 1
    """Number of blocks unrolled per iteration of the layer scan."""
    attention: Literal["auto", "reference", "splash", "cudnn"] = "auto"
    """Attention kernel of the backbone, "auto": chosen by device; refiners always use "auto"."""


@dataclass(frozen=True)
class VAEConfig:
    """Image autoencoder between pixels and latents."""

    source: str = "pixels"
    """ "pixels" for no autoencoder, the folder of an exported one, or a folder or hub id in
    diffusers' layout (an AutoencoderKL, an AutoencoderTiny, or a pipeline)."""
    tile: NotNegative[int] = 0
    """Side of the overlapping tiles in which large images are decoded, in pixels; 0 for none."""
    dtype: ComputeType = "float32"
    """Compute type of training and decoding. Cached latents are always encoded in float32."""
    architecture: Literal["patch", "kl"] = "patch"
    """Architecture to train: "patch" is small, for CPUs, "kl" Stable Diffusion's AutoencoderKL.
    This field and those below are for training; a loaded autoencoder has its own values."""
    channels: Positive[int] = 16
    """Number of latent channels C (paper: 16)."""
    downsample: Positive[int] = 8
    """Image pixels per latent pixel, along each side (paper: 8)."""
    patch: Positive[int] = 4
    """Downsampling factor of the initial space-to-depth; strided stages do the rest. Architecture
    "patch" only."""
    width: Positive[int] = 64
    """Channels of the first stage. "patch" doubles them at each strided stage."""
    blocks: Positive[int] = 2
    """Residual blocks per stage."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Architecture "kl": channels of each stage over `width`; all but the last halve the image."""
    norm_groups: Positive[int] = 32
    """Architecture "kl": number of GroupNorm groups."""
    attention: bool = True
    """Architecture "kl": self-attention at the lowest resolution."""
    reconstruction: Literal["l1", "l2"] = "l1"
    """Reconstruction loss: absolute ("l1") or squared ("l2") error."""
    gradient_weight: NotNegative[float] = 0.0
    """Weight of an L1 loss on image gradients at three scales, for sharp edges (ours)."""
    kl_weight: NotNegative[float] = 1e-4
    """Weight of the KL term, averaged over latent values, relative to the reconstruction loss."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Diffusion process (paper, appendix A.1: DDPM, noise prediction)."""

    process: Literal["ddpm", "flow"] = "ddpm"
    """Diffusion process: "ddpm" is the paper's, "flow" is rectified flow."""
    prediction: Space = "epsilon"
    """Prediction target; "flow" takes "velocity" or "x0", and only "flow" takes "velocity"."""
    loss: Literal["prediction", Space] = "prediction"
    """Space in which the error is measured; "prediction": that of the network's prediction."""
    timesteps: Positive[int] = 1000
    """Number of DDPM timesteps T (ours)."""
    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"
    """DDPM noise schedule (ours; the paper names none)."""
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    """Rescale the DDPM schedule so that the last timestep is pure noise; needs "v" or "x0"."""
    weighting: Literal["none", "min_snr", "sigma_sqrt", "cosmap"] = "none"
    """Loss weight by time; "sigma_sqrt" and "cosmap" are for "flow" only."""
    snr_gamma: float = 5.0
    """Largest weight of the squared x0 error under "min_snr"."""
    time_sampling: Literal["uniform", "logit_normal", "mode"] = "logit_normal"
    """Distribution of flow times in training (Stable Diffusion 3)."""
    logit_mean: float = 0.0
    """Mean of the times' logits under "logit_normal"; above 0 gives noisier times."""
    logit_std: float = 1.0
    """Standard deviation of the times' logits under "logit_normal"."""
    mode_scale: float = 1.29
    """Strength of the preference of "mode" for middle times."""
    shift: float = 1.0
    """Resolution shift of flow times: t' = s*t / (1 + (s-1)*t)."""
    resolution_shift: bool = False
    """Shift times of images of other sizes than `data.image_size` (Stable Diffusion 3, eq. 23)."""
    caption_dropout: Fraction = 0.1
    """Share of samples trained with the empty prompt, for classifier-free guidance (ours)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer; the paper gives only the learning rate, the rest is ours."""

    name: Literal["adamw", "adafactor", "muon"] = "adamw"
    """Optimizer (`lidit_jax.training.optimizers`); "muon" updates matrices, AdamW the rest."""
    learning_rate: Positive[float] = 1e-4
    schedule: Literal["constant", "cosine", "warmup_stable_decay"] = "constant"
    """Schedule after the warm-up: "cosine" decays to zero at the last step, "warmup_stable_decay"
    stays constant, then decays linearly to zero over the last `decay_steps`."""
    warmup_steps: NotNegative[int] = 1000
    decay_steps: NotNegative[int] = 0
    """Number of decay steps of "warmup_stable_decay"."""
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    weight_decay: NotNegative[float] = 0.0
    """Weight decay of kernels only, not of biases, norm scales, modulations and gates. Multiplied
    by the learning rate, except under "adafactor": there the share of a weight removed per step."""
    clip_norm: Positive[float] = 1.0
    """Global gradient norm above which gradients are scaled down."""
    momentum_dtype: ComputeType = "float32"
    """Type of the first moments; bfloat16 halves their memory."""
    skip_spikes: NotNegative[float] = 0.0
    """Skip updates whose gradient norm exceeds its running mean by this factor; 0 for none."""
    freeze: tuple[str, ...] = ()
    """Parameters that do not change: regular expressions of their paths (`parameters.txt` of a
    workdir) or of the modules that hold them, such as "blocks/.*attention", matched as a whole.
    They have no gradients and no moments."""


@dataclass(frozen=True)
class TrainingConfig:
    """Training loop."""

    task: Literal["lidit", "vae"] = "lidit"
    """ "lidit" trains the text-to-image model, "vae" its image autoencoder."""
    steps: Positive[int] = 500_000
    batch_size: Positive[int] = 2048
    accumulation: Positive[int] = 1
    """Gradient accumulation: number of equal parts of a batch, computed in turn to save memory."""
    quantization: Literal["none", "int8", "fp8"] = "none"
    """Type of the matmuls in the backbone's blocks, forward and backward: "none" for `model.dtype`,
    or quantized to "int8" or "fp8" (e4m3, gradients e5m2). Validation and sampling stay exact."""
    ema_decay: Decay = 0.9999
    """Decay of the EMA weights, which sampling uses (ours)."""
    log_every: Positive[int] = 50
    """Steps between progress lines; the first is five steps after a start, to show the speed."""
    eval_every: Positive[int] = 1000
    """Steps between validation losses (raw and EMA weights)."""
    image_every: NotNegative[int] = 1000
    """Steps between image grids of the fixed prompts; 0 for none. The first is at step 100 at the
    latest, or where the run is stopped earlier."""
    checkpoint_every: Positive[int] = 1000
    keep_checkpoints: Positive[int] = 3
    """Number of newest checkpoints to keep."""
    keep_every: NotNegative[int] = 0
    """Also keep each checkpoint whose step is a multiple of this, permanently; 0 for none."""
    keep_best: bool = False
    """Also keep the best checkpoint so far, by `best_by`."""
    best_by: Literal["validation_loss_ema", "scene_score"] = "validation_loss_ema"
    """Lowest "validation_loss_ema" (loss of the EMA weights) or highest "scene_score"."""
    local_checkpoints: str = ""
    """Folder on each host's own disk, or in its memory, for extra saves of the host's shards, to
    resume from after a crash; "" for none. The workdir's checkpoints do not change."""
    local_every: Positive[int] = 100
    """Steps between saves to `local_checkpoints`."""
    score_every: NotNegative[int] = 0
    """Steps between scores of the EMA weights on scenes, like those of `lidit eval scenes`; 0 for
    never. Only with a `data.source` that has ground truth: "scenes"."""
    score_prompts: Positive[int] = 8
    """Prompts of each of the nine tasks per score."""
    init_from: str = ""
    """Workdir, checkpoint or exported folder whose EMA weights initialize this run: the previous
    stage (paper, 5.1: 512 px, then 1024 px), or a model to fine-tune. Or the folder of a refiner
    (`lidit convert from-hf`), for linguistic refiners of its shapes; all else is initialized."""
    init_new: tuple[str, ...] = ()
    """Parameters that are initialized all the same, as a new encoder's projection: patterns like
    those of `optimizer.freeze`. All others must be in `init_from`, of the same shapes."""
    init_optimizer: bool = False
    """Also restore raw weights and the optimizer's moments; `init_from` is then a workdir of the
    same model and optimizer. The learning rate schedule restarts."""
    stop_after_skipped: Positive[int] = 10
    """Consecutive updates that may be skipped as not finite before the run stops."""
    watchdog_minutes: NotNegative[float] = 0.0
    """Dump the stacks of all threads when a step takes longer; 0 for never."""
    barrier_minutes: NotNegative[float] = 0.0
    """Stop when another process is this much later at the start of the steps, or at the end of the
    run; 0 waits without a limit."""
    profile_from: NotNegative[int] = 0
    """First step of a profiler trace in `profile/` of the workdir; 0 for none. A file `profile-now`
    in the workdir, or SIGUSR1, starts a trace at any time."""
    profile_steps: Positive[int] = 5
    """Number of steps in a trace."""
    tracker: Literal["none", "wandb", "trackio"] = "none"
    """Also log the metrics to "wandb" or "trackio", which must be installed."""
    prompts: tuple[str, ...] = ()
    """Fixed prompts of the image grid; empty takes them from the data: four scenes for source
    "scenes", else eight captions spread over the records."""


@dataclass(frozen=True)
class SamplingConfig:
    """Defaults of `lidit sample`, stored in each checkpoint (the paper states none)."""

    sampler: Literal[
        "ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpm++2m", "dpm++2m_sde", "unipc"
    ] = "ddim"
    """Sampler (`lidit_jax.diffusion.samplers`); "ddim" and "ddpm" are for DDPM only."""
    steps: Positive[int] = 50
    spacing: Literal["trailing", "linspace", "leading", "karras"] = "trailing"
    """Spacing of the sampling times (`lidit_jax.diffusion.spacing`); "leading" is for DDPM only."""
    shift: float = 0.0
    """Resolution shift of flow times in sampling; 0 for that of training."""
    eta: float = 0.0
    """Share of fresh noise in "ddim"."""
    cache_interval: Positive[int] = 1
    """Evaluations from one full evaluation to the next; those between reuse cached features."""
    guidance: NotNegative[float] = 5.0
    """Guidance scale; 1 turns guidance off and halves the compute."""
    guidance_method: Literal["cfg", "cfg_zero", "apg"] = "cfg"
    """Guidance method (`lidit_jax.diffusion.guidance`); "cfg_zero" is for "flow"."""
    guidance_low: float = 0.0
    """Start of the interval on the time axis with guidance (0 image, 1 noise)."""
    guidance_high: float = 1.0
    """End of the interval with guidance."""
    guidance_rescale: float = 0.0
    """Weight of rescaling guided predictions to the standard deviation before guidance."""
    zero_steps: int = 1
    """Number of first steps with zero velocity under "cfg_zero"."""
    apg_parallel: float = 0.0
    """Weight of the guidance component parallel to the prediction under "apg"."""
    apg_norm: float = 0.0
    """Largest norm of the guidance update under "apg"; 0 for no limit."""
    apg_momentum: float = -0.5
    """Momentum of the guidance update under "apg"."""


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1 uses the remaining devices."""

    data: int = -1
    """Data parallelism: copies of the model within a slice, each with its part of the batch."""
    fsdp: int = 1
    """Fully sharded data parallelism: parts of the batch that also shard the weights."""
    tensor: int = 1
    """Tensor parallelism: parts of the heads and of the FFNs' hidden width."""
    context: int = 1
    """Context parallelism: parts of an image's tokens."""
    replica: int = 1
    """Slices, connected by the slower data-center network: copies of the model, like `data`."""


@dataclass(frozen=True)
class Config(Storable):
    """Complete configuration of a run."""

    seed: Seed = 0
    encoders: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the network's input for a training image."""
        side = self.data.image_size
        if self.vae.source == "pixels":
            return side, side, 3
        return side // self.vae.downsample, side // self.vae.downsample, self.vae.channels

    @property
    def image_tokens(self) -> int:
        """Number of tokens N of a training image."""
        rows, columns, _ = self.latent_shape
        return (rows // self.model.patch) * (columns // self.model.patch)
