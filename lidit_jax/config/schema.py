"""The configuration: typed, frozen, one docstring line a field; recipes override, nothing else.

`Config` is what the program reads. A recipe (`configs/*.py`) starts from
`lidit_jax.config.load.default_config()`, a locked `ml_collections.ConfigDict` of the same fields,
overrides what it wants and returns it. The
command line overrides once more (`--config.model.depth=12`), then `freeze` checks types and values
and returns a `Config`. Every choice that the paper leaves open is a field here, marked "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lidit_jax.config.build import Storable
from lidit_jax.config.prompt_format import INSTRUCTION
from lidit_jax.config.values import ComputeType, Decay, Fraction, NotNegative, Positive, Seed, Space


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen text encoders, one stream each (paper, 3.1 and 5.1)."""

    sources: tuple[str, ...] = ("smollm2", "minilm")
    """Folder, file, hub id or packaged name of each encoder. The paper: LLaMA3-8B, Qwen1.5-7B."""
    layers: tuple[int, ...] = ()
    """Block whose output is used, counted from the end (-3 = third from the end), one a stream.
    Empty: -3 for decoder-only LLMs (paper, 5.1), the normed last layer for bidirectional ones."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """How the frozen weights are kept; "int8" is for linear maps, the rest is bfloat16 (ours)."""
    instruction: str = INSTRUCTION
    """Text before every prompt (paper, 3.1), cleaned as prompts are. Empty: the "no instruction"
    ablation."""
    system_prompt: str = ""
    """First line of the layout in the paper's figures 4 and 5, which never give its content."""
    max_prompt_tokens: Positive[int] = 256
    """Longest prompt, in tokens, a stream (ours). Training truncates, sampling refuses."""


@dataclass(frozen=True)
class RefinerConfig:
    """The linguistic token refiners and the collaborative refiner (paper, 3.2 and 3.3)."""

    blocks: NotNegative[int] = 2
    """Blocks of each linguistic refiner; 2 in the paper, 0 gives the projected raw features."""
    causal: bool = False
    """Keep a causal mask in the refiner: the ablation of table 3."""
    gate: bool = True
    """Zero-initialized adaptive gates; False is the "no gate" row of table 5."""
    collaborative_blocks: NotNegative[int] = 1
    """Blocks of the collaborative refiner; 1 in the paper, 0 is "concat only" of table 6."""
    mlp_ratio: Positive[int] = 4
    """Width of the FFNs over the refiner's width (ours)."""
    feature_norm: Literal["rms", "none"] = "rms"
    """Per-token norm of the LLM features before projection (ours)."""
    pool: Literal["all", "prompt"] = "all"
    """Tokens in the pooled vector: "all" valid ones (literal reading) or those of the "prompt"."""
    pool_raw: bool = False
    """Pool the features before the norm (as HunyuanVideo's refiner does)."""
    own_time_embedder: bool = False
    """Give each refiner its own time embedder (as HunyuanVideo's) instead of the backbone's."""


@dataclass(frozen=True)
class ModelConfig:
    """The LI-DiT backbone (paper, 3.4, table 7)."""

    width: Positive[int] = 1152
    """Width D of every token in backbone and refiners."""
    depth: Positive[int] = 28
    """Transformer blocks L of the backbone."""
    heads: Positive[int] = 16
    """Attention heads H; the head width K is width / heads."""
    patch: Positive[int] = 2
    """Side of a patch, in latent pixels."""
    mlp_ratio: Positive[int] = 4
    """Width of the backbone's FFN over the model width."""
    position: Literal["conv", "rope", "sincos", "conv+rope", "conv+sincos"] = "conv"
    """How tokens learn where they are: "conv" is the paper's ResBlock after patchify, "rope" turns
    queries and keys by their place, "sincos" adds fixed waves; or two of them. The paper draws no
    inside of the ResBlock; ours is pre-activation: RMSNorm, SiLU and a 3x3 convolution, twice, plus
    the input."""
    qk_norm: bool = True
    """RMSNorm on queries and keys of self- and cross-attention (paper, 3.4)."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    dtype: ComputeType = "bfloat16"
    """Compute type of matmuls and activations; parameters stay float32 (paper: bf16 mixed)."""
    remat: Literal["none", "full", "dots", "branches", "attention", "offload"] = "none"
    """What the backward pass of a block recomputes, in the refiners too: "full", all of it; "dots",
    all but the products of weights and the attentions; "branches", all but the attentions and what
    each branch gives; "attention", all but the attentions; "offload", as "full", with the inputs of
    the backbone's blocks moved to the host's memory meanwhile."""
    scan_unroll: Positive[int] = 1
    """Blocks unrolled in each iteration of the layer scan."""
    attention: Literal["auto", "reference", "splash", "cudnn"] = "auto"
    """Kernel of the backbone's attentions, "auto" by the devices; refiners always use "auto"."""


@dataclass(frozen=True)
class VAEConfig:
    """The image autoencoder between pixels and latents."""

    source: str = "pixels"
    """ "pixels" for none at all, the folder of an exported one, or a folder or hub id in diffusers'
    layout (an AutoencoderKL, an AutoencoderTiny, or a pipeline)."""
    tile: NotNegative[int] = 0
    """Side, in pixels, of the overlapping tiles that large images are decoded in; 0 for none."""
    dtype: ComputeType = "float32"
    """Compute type of training and decoding. Latents to keep are always encoded in float32."""
    architecture: Literal["patch", "kl"] = "patch"
    """What training builds: "patch" is small, for CPUs, "kl" Stable Diffusion's AutoencoderKL.
    This field and those below describe an autoencoder to train; a loaded one brings its own."""
    channels: Positive[int] = 16
    """Latent channels C (paper: 16)."""
    downsample: Positive[int] = 8
    """Image pixels a latent pixel, along each side (paper: 8)."""
    patch: Positive[int] = 4
    """Part of the downsampling done at once, by space-to-depth; the rest by strided stages.
    Architecture "patch" only."""
    width: Positive[int] = 64
    """Channels of the first stage. "patch" doubles them at each strided stage."""
    blocks: Positive[int] = 2
    """Residual blocks a stage."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Architecture "kl": channels of each stage over `width`; all stages but the last halve."""
    norm_groups: Positive[int] = 32
    """Architecture "kl": groups of its GroupNorms."""
    attention: bool = True
    """Architecture "kl": self-attention at the lowest resolution."""
    reconstruction: Literal["l1", "l2"] = "l1"
    """Distance of reconstruction and image: absolute or squared error."""
    gradient_weight: NotNegative[float] = 0.0
    """Weight of an L1 distance of image gradients at three sizes, for sharp edges (ours)."""
    kl_weight: NotNegative[float] = 1e-4
    """Weight of the KL term, as a mean over latent values, beside the reconstruction loss."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion process (paper, appendix A.1: DDPM, noise prediction)."""

    process: Literal["ddpm", "flow"] = "ddpm"
    """ "ddpm" is the paper's, "flow" rectified flow."""
    prediction: Space = "epsilon"
    """What the network predicts; under "flow", "velocity" or "x0", and "velocity" only there."""
    loss: Literal["prediction", Space] = "prediction"
    """Space in which the error is measured; "prediction": the one that the network predicts."""
    timesteps: Positive[int] = 1000
    """DDPM steps T (ours)."""
    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"
    """DDPM noise schedule (ours; the paper names none)."""
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    """Make the last DDPM step noise alone, as sampling starts from; needs "v" or "x0"."""
    weighting: Literal["none", "min_snr", "sigma_sqrt", "cosmap"] = "none"
    """How much a time counts in the loss; "sigma_sqrt" and "cosmap" are for "flow" only."""
    snr_gamma: float = 5.0
    """Largest weight of an error in the image under "min_snr"."""
    time_sampling: Literal["uniform", "logit_normal", "mode"] = "logit_normal"
    """How flow times are drawn in training (Stable Diffusion 3)."""
    logit_mean: float = 0.0
    """Mean of the times' logits under "logit_normal"; above 0 noisier times."""
    logit_std: float = 1.0
    """Their standard deviation."""
    mode_scale: float = 1.29
    """How strongly "mode" prefers the middle times."""
    shift: float = 1.0
    """Resolution shift of flow times: t' = s*t / (1 + (s-1)*t)."""
    resolution_shift: bool = False
    """Shift times of images of another size than `data.image_size` (Stable Diffusion 3, eq. 23)."""
    caption_dropout: Fraction = 0.1
    """Share of samples trained with the empty prompt's features, for guidance (ours)."""


@dataclass(frozen=True)
class DataConfig:
    """Images and captions."""

    source: str = "scenes"
    """ "scenes" (procedural, with known truth), "folder" (a directory of captioned images), or
    another format of docs/data.md: "webdataset", "parquet", "array_record", "tfds", "classes", …"""
    path: str = ""
    """Where the images are; for formats other than "folder" also an index of `lidit data index`."""
    caption_column: str = ""
    """Caption column to read; empty: "caption", or the only one."""
    image_size: Positive[int] = 64
    """Side of the square training images, in pixels."""
    train_records: Positive[int] = 50_000
    """Scenes generated for training."""
    distinct_captions: NotNegative[int] = 0
    """Captions that the scenes share, so that fewer need encoding; 0 gives each scene its own."""
    scene_fractions: tuple[float, ...] = ()
    """Shares of the tasks in `lidit_jax.data.scenes.sampling.MIXTURE`; empty for its own."""
    textured_fraction: Fraction = 0.15
    """Share of the scenes whose caption names a texture."""
    sized_fraction: Fraction = 0.15
    """Share of the scenes of one or two objects whose caption names a size."""
    caption_style: Literal["plain", "varied"] = "plain"
    """Captions of the scenes in English: "plain", adjectives before nouns in a few templates, or
    "varied", half of them paraphrased (`lidit_jax.data.scenes.paraphrases`)."""
    validation_records: Positive[int] = 512
    """Held-out scenes for the validation loss."""
    language: Literal["en", "zh", "both"] = "en"
    """Captions of the scenes."""
    text_features: Literal["cached", "online"] = "cached"
    """When the frozen encoders read the captions: "cached", all of them before training; "online",
    during training, whenever a caption is used."""
    latents: Literal["cached", "online"] = "cached"
    """When the frozen autoencoder encodes the pictures: "cached", all of them before training;
    "online", in the step, whenever a picture is read. Latents are then normalized by the statistics
    of the first 4,096 pictures, as they are when cached, and only the held-out ones are stored."""
    workers: NotNegative[int] = 0
    """Processes of each host that read or draw pictures while training, "online" or for the
    autoencoder, and make captions before, where there are many; 0 for threads. Batches are the same
    with any number of them."""
    encode_steps: Positive[int] = 1
    """Steps whose captions are encoded in one call, "online". A large encoder that is split over
    devices then gathers its weights that much less often."""
    latent_statistics: Literal["keep", "recompute"] = "keep"
    """Mean and standard deviation that normalize latents, a part of the model: "keep" those of the
    checkpoint that a run resumes or starts from; "recompute" them from the data at every start."""
    cache_dir: str = ""
    """Where prepared features and latents live; empty: `~/.cache/lidit`."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The paper gives only the learning rate; the rest is ours."""

    name: Literal["adamw", "adafactor", "muon"] = "adamw"
    """See `lidit_jax.training.optimizers`; "muon" updates matrices, and AdamW the rest."""
    learning_rate: Positive[float] = 1e-4
    schedule: Literal["constant", "cosine", "warmup_stable_decay"] = "constant"
    """After the warm-up: "cosine" falls to zero at the last step, "warmup_stable_decay" stays, then
    falls linearly to zero over the last `decay_steps`."""
    warmup_steps: NotNegative[int] = 1000
    decay_steps: NotNegative[int] = 0
    """Length of the decay of "warmup_stable_decay"."""
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    weight_decay: NotNegative[float] = 0.0
    """Of kernels only, not of biases, scales of norms, modulations and gates. Times the learning
    rate; under "adafactor" the share of a weight that each step takes away, whatever the rate."""
    clip_norm: Positive[float] = 1.0
    """Global gradient norm above which gradients are scaled down."""
    momentum_dtype: ComputeType = "float32"
    """Type of the first moments; bfloat16 halves their memory."""
    skip_spikes: NotNegative[float] = 0.0
    """Leave out updates whose gradient norm is this many times its running mean; 0 for none."""


@dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    task: Literal["lidit", "vae"] = "lidit"
    """ "lidit" trains the text-to-image model, "vae" the autoencoder that it can use."""
    steps: Positive[int] = 500_000
    batch_size: Positive[int] = 2048
    accumulation: Positive[int] = 1
    """Equal parts in which a batch is worked off, one after the other, to save memory."""
    quantization: Literal["none", "int8", "fp8"] = "none"
    """Matrix products of the backbone's blocks, forward and backward: "none" for `model.dtype`, or
    quantized to "int8" or "fp8" (e4m3, gradients e5m2). Validation and sampling stay exact."""
    ema_decay: Decay = 0.9999
    """Decay of the averaged weights that sampling uses (ours)."""
    log_every: Positive[int] = 50
    """Steps between two lines of progress; one comes five steps after a start, for the speed."""
    eval_every: Positive[int] = 1000
    """Steps between validation losses (raw and averaged weights)."""
    image_every: NotNegative[int] = 1000
    """Steps between grids of the fixed prompts; 0 for none. The first comes at step 100 at the
    latest, or where the run is stopped before that."""
    checkpoint_every: Positive[int] = 1000
    keep_checkpoints: Positive[int] = 3
    """Newest checkpoints to keep."""
    keep_every: NotNegative[int] = 0
    """Also keep, for ever, each checkpoint whose step is a multiple of this; 0 for none."""
    keep_best: bool = False
    """Also keep the best checkpoint so far, by `best_by`."""
    best_by: Literal["validation_loss_ema", "scene_score"] = "validation_loss_ema"
    """ "validation_loss_ema" of the averaged weights, the lowest, or "scene_score", the highest."""
    local_checkpoints: str = ""
    """Folder on each host's own disk, or in its memory, where it also saves its shards, to go on
    from after a crash; "" for none. The workdir's checkpoints stay as they are."""
    local_every: Positive[int] = 100
    """Steps between those local saves."""
    score_every: NotNegative[int] = 0
    """Steps between scores of the averaged weights on scenes, like those of `lidit eval scenes`; 0
    for never. Only with a `data.source` that has a truth to compare with: "scenes"."""
    score_prompts: Positive[int] = 8
    """Prompts of each of the nine tasks behind a score."""
    init_from: str = ""
    """Workdir, checkpoint or exported folder whose averaged weights start this run: the stage
    before (paper, 5.1: 512 px, then 1024 px), or a model to fine-tune. Or the folder of a refiner
    (`lidit convert from-hf`), for linguistic refiners of its shapes. The rest starts afresh."""
    init_optimizer: bool = False
    """Also take over raw weights and the optimizer's moments; `init_from` is then a workdir of the
    same model and optimizer. The learning rate's schedule starts anew."""
    stop_after_skipped: Positive[int] = 10
    """Updates in a row that may be left out because they were not finite, before the run stops."""
    watchdog_minutes: NotNegative[float] = 0.0
    """Dump the stacks of all threads when a step takes longer; 0 for never."""
    barrier_minutes: NotNegative[float] = 0.0
    """Stop when another process is this much later at the start of the steps, or at the end of the
    run; 0 waits without asking."""
    profile_from: NotNegative[int] = 0
    """Trace steps from this one on into `profile/` of the workdir; 0 for none. A file `profile-now`
    in the workdir, or SIGUSR1, asks for it at any time."""
    profile_steps: Positive[int] = 5
    """Steps of a trace."""
    tracker: Literal["none", "wandb", "trackio"] = "none"
    """Also send the metrics to "wandb" or "trackio", where that is installed."""
    prompts: tuple[str, ...] = ()
    """Fixed prompts of the image grid; empty takes them from the data: four scenes for source
    "scenes", and for "folder" up to eight of its captions, spread over it."""


@dataclass(frozen=True)
class SamplingConfig:
    """Defaults of `lidit sample`, stored in each checkpoint (the paper states none)."""

    sampler: Literal[
        "ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpm++2m", "dpm++2m_sde", "unipc"
    ] = "ddim"
    """How a step is taken (`lidit_jax.diffusion.samplers`); "ddim" and "ddpm" are for DDPM only."""
    steps: Positive[int] = 50
    spacing: Literal["trailing", "linspace", "leading", "karras"] = "trailing"
    """Times that are visited (`lidit_jax.diffusion.spacing`); "leading" is for DDPM only."""
    shift: float = 0.0
    """Shift of flow times in sampling; 0 for that of training."""
    eta: float = 0.0
    """Share of fresh noise in "ddim"."""
    cache_interval: Positive[int] = 1
    """Evaluations from one computed in full to the next; those between reuse most of it."""
    guidance: NotNegative[float] = 5.0
    """Guidance scale; 1 switches it off and halves the work."""
    guidance_method: Literal["cfg", "cfg_zero", "apg"] = "cfg"
    """How two predictions become one (`lidit_jax.diffusion.guidance`); "cfg_zero" is for "flow"."""
    guidance_low: float = 0.0
    """Guide from this place on the time axis (0 image, 1 noise) ..."""
    guidance_high: float = 1.0
    """... to this one."""
    guidance_rescale: float = 0.0
    """Share of the rescaling of guided predictions to the contrast before guidance."""
    zero_steps: int = 1
    """First steps without motion under "cfg_zero"."""
    apg_parallel: float = 0.0
    """Share of the change along the image under "apg"."""
    apg_norm: float = 0.0
    """Largest norm of the change under "apg"; 0 for no limit."""
    apg_momentum: float = -0.5
    """Momentum of the change under "apg"."""


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1 takes the devices that are left."""

    data: int = -1
    """Copies of the model within a slice; each sees its part of the batch."""
    fsdp: int = 1
    """Parts of the batch that also share the weights among them."""
    tensor: int = 1
    """Parts of the heads and of the FFNs' hidden width."""
    context: int = 1
    """Parts of an image's tokens."""
    replica: int = 1
    """Slices, joined by the slower data-center network: copies of the model, like `data`."""


@dataclass(frozen=True)
class Config(Storable):
    """Everything that decides a run."""

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
        """Rows, columns and channels of what the network sees of a training image."""
        side = self.data.image_size
        if self.vae.source == "pixels":
            return side, side, 3
        return side // self.vae.downsample, side // self.vae.downsample, self.vae.channels

    @property
    def image_tokens(self) -> int:
        """Tokens N of a training image."""
        rows, columns, _ = self.latent_shape
        return (rows // self.model.patch) * (columns // self.model.patch)
