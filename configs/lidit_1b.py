"""LI-DiT-1B as the paper trains it (section 5.1, table 7): 256 px, batch 2048, 500k steps.

Command:  lidit train --config=configs/lidit_1b.py:v5e:16x16 --workdir=DIR \\
              --config.data.path=TARS
          TARS are those of img2dataset, with the field "aesthetic" and a second caption "synthetic"
          in each .json; other formats: --config.data.source=parquet (docs/data.md)
Hardware: not run here; the paper does not name its own. docs/plans.md predicts step time, memory
          and chip-hours for every topology below; GPU nodes: lidit plan --topology=h100:8x4.
Expected: T2I-CompBench color 74.08, shape 59.34, texture 69.59; GenEval 0.60; DPG-Bench 81.65
          (the paper's table 1, with its own data of 30M images, LLMs and autoencoder).

Choices behind the colon, in any order: a topology of the table, `2slices` or `4slices` of it,
`head128` for heads of 128 channels instead of 72 (the same parameters, faster on TPUs), `online` to
encode captions while training instead of reading 49 TB of features, `unfiltered` for images with
one caption and without scores. XLA's flags follow the chips (`lidit_jax/hardware/xla_flags.py`).
1152 = 128 * 9: the width divides over at most 128 devices; 16 of them, with 72 rows each, is the
most that needs no padding (docs/plans.md, "Compiled").

The encoders named below are public stand-ins for the paper's LLaMA3-8B and Qwen1.5-7B, which its
authors tuned on images and did not release; the autoencoder is a public one with the paper's 16
channels. Others: --config.encoders.sources="('LLAMA', 'QWEN')", --config.vae.source=VAE.
"""

from lidit_jax.config import Choices, Placement, default_config

CHOICES = Choices(
    variants={
        "head128": {"model.heads": 9},
        "online": {"data.text_features": "online", "data.encode_steps": 8},
        "unfiltered": {
            "data.filters.scores": (),
            "data.filters.captions_without": (),
            "data.captions.columns": (),
            "data.captions.rates": (),
        },
    },
    placements={
        "v5e:16x16": {256: Placement(fsdp=16, remat="dots", at_once=8)},
        "v5p:4x8x8": {256: Placement(fsdp=16, remat="dots", at_once=8)},
        "v5p:8x8x16": {256: Placement(fsdp=16, remat="dots", at_once=2)},
        "v6e:16x16": {256: Placement(fsdp=16, remat="dots", at_once=8)},
        # 64 chips, which JAX sees as 128 devices of 94.75 GiB each.
        "tpu7x:4x4x4": {256: Placement(fsdp=16, remat="dots", at_once=16)},
    },
)


def get_config():
    config = default_config()
    config.encoders.sources = (
        "xtuner/llava-llama-3-8b-v1_1-transformers",
        "llava-hf/llava-interleave-qwen-7b-hf",
    )
    config.encoders.dtype = "bfloat16"
    config.vae.source = "black-forest-labs/FLUX.1-schnell"
    # As in the paper: LAION of aesthetic score 4.7 and above without small images and captions
    # with URLs or tags, in buckets of aspect ratios, without augmentation. It mixes original
    # captions with synthetic ones "as in SD3": ours is that model's half of each.
    config.data.source = "webdataset"
    config.data.filters.scores = ("aesthetic>=4.7",)
    config.data.filters.min_width = 256
    config.data.filters.min_height = 256
    config.data.filters.captions_without = ("url", "tags")
    config.data.captions.columns = ("caption", "synthetic")
    config.data.captions.rates = (0.5, 0.5)
    config.data.image_size = 256
    config.model.width = 1152
    config.model.depth = 28
    config.model.heads = 16
    config.model.patch = 2
    config.model.remat = "full"
    config.training.batch_size = 2048
    config.training.steps = 500_000
    return config
