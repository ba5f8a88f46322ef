"""LI-DiT-1B grown from PixArt-Sigma's public weights, which have its shape: 256, 512, 1024 px.

Command:  lidit convert from-hf pixart PixArt-alpha/PixArt-Sigma-XL-2-256x256 runs/pixart \\
              --pipeline PixArt-alpha/PixArt-Sigma-XL-2-1024-MS
          lidit train --config=configs/lidit_1b_from_pixart.py --workdir=runs/pixart-1 \\
              --config.data.path=TARS
          and then, each from the averaged weights of the stage before, with the same TARS:
          lidit train --config=configs/lidit_1b_from_pixart.py:all --workdir=runs/pixart-2 ...
          lidit train --config=configs/lidit_1b_from_pixart.py:512px --workdir=runs/pixart-3 ...
          lidit train --config=configs/lidit_1b_from_pixart.py:1024px --workdir=runs/pixart-4 ...
          TARS are those of lidit_1b.py
Hardware: not run here. docs/plans.md predicts every stage on 16 TPU v5e and on one H100, beside
          training from scratch.
Expected: not known. No stage was trained; steps, batches and rates are ours.

Two LLMs take T5's place. The first stage trains what is new: both linguistic refiners with their
projections and the collaborative refiner, and the keys and values of the backbone's
cross-attention, which must learn to read the new tokens; all else is frozen and without moments.
The gates of the refiners begin at zero, so that the first tokens are the LLMs' own, projected. The
second stage trains everything, the third and fourth at larger images. The network stays PixArt's
where it differs from the paper's: cross-attention without gate and norm, fixed positions that span
32 on every side whatever the size, no norm of queries and keys, a table in the output layer, and
conditions without the pooled text (`config.model.refiner.pool`), which the weights do not know.

Choices behind the colon, in any order: a stage, a topology (`v5e:4x4`, `v5e:16x16`), `online` to
encode captions while training, `unfiltered` for images with one caption and without scores. Other
encoders: --config.encoders.sources="('LLAMA', 'QWEN')". PixArt-alpha: convert it, set
config.model.sincos_extent (and size_embedding=8 at 1024 px) to the values in its config.json, and
config.vae.source to its repository, whose autoencoder is another one than Sigma's.
"""

from lidit_jax.config import Choices, Placement, default_config

_NEW = "(linguistic|collaborative)_refiner.*"
_EVERYTHING = {
    "optimizer.freeze": (),
    "optimizer.learning_rate": 2e-5,
    "training.init_new": (),
}

CHOICES = Choices(
    variants={
        "all": _EVERYTHING | {"training.init_from": "runs/pixart-1", "training.steps": 30_000},
        "512px": _EVERYTHING
        | {
            "training.init_from": "runs/pixart-2",
            "training.steps": 20_000,
            "training.batch_size": 512,
            "data.image_size": 512,
            "data.filters.min_width": 512,
            "data.filters.min_height": 512,
        },
        "1024px": _EVERYTHING
        | {
            "training.init_from": "runs/pixart-3",
            "training.steps": 10_000,
            "training.batch_size": 256,
            "data.image_size": 1024,
            "data.filters.min_width": 1024,
            "data.filters.min_height": 1024,
        },
        "online": {"data.text_features": "online", "data.encode_steps": 8},
        "unfiltered": {
            "data.filters.scores": (),
            "data.filters.captions_without": (),
            "data.captions.columns": (),
            "data.captions.rates": (),
        },
    },
    placements={
        "v5e:4x4": {
            256: Placement(fsdp=16, remat="dots", at_once=32),
            512: Placement(fsdp=8, remat="dots", at_once=8),
            1024: Placement(fsdp=8, remat="dots", at_once=2),
        },
        "v5e:16x16": {
            256: Placement(fsdp=16, remat="dots", at_once=4),
            512: Placement(fsdp=16, remat="dots", at_once=2),
            1024: Placement(fsdp=16, remat="dots", at_once=1),
        },
    },
)


def get_config():
    config = default_config()
    config.encoders.sources = (
        "xtuner/llava-llama-3-8b-v1_1-transformers",
        "llava-hf/llava-interleave-qwen-7b-hf",
    )
    config.encoders.dtype = "bfloat16"
    config.vae.source = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    config.vae.channels = 4
    config.vae.downsample = 8
    # As lidit_1b.py.
    config.data.source = "webdataset"
    config.data.filters.scores = ("aesthetic>=4.7",)
    config.data.filters.min_width = 256
    config.data.filters.min_height = 256
    config.data.filters.captions_without = ("url", "tags")
    config.data.captions.columns = ("caption", "synthetic")
    config.data.captions.rates = (0.5, 0.5)
    config.data.image_size = 256
    # PixArt-Sigma's network, as `lidit convert` writes it, with the paper's refiners.
    config.model.width = 1152
    config.model.depth = 28
    config.model.heads = 16
    config.model.patch = 2
    config.model.position = "sincos"
    config.model.sincos_extent = 32.0
    config.model.sincos_order = "column_first"
    config.model.qk_norm = False
    config.model.cross_attention = "plain"
    config.model.output_modulation = "table"
    config.model.refiner.pool = "none"
    config.model.remat = "full"
    config.sampling.sampler = "dpm++2m"
    config.sampling.steps = 20
    config.sampling.guidance = 4.5
    config.training.init_from = "runs/pixart"
    config.training.init_new = (_NEW,)
    config.optimizer.freeze = (f"(?!{_NEW}|blocks/cross_attention/(key|value)).*",)
    config.optimizer.learning_rate = 1e-4
    config.training.batch_size = 1024
    config.training.steps = 20_000
    return config
