"""LI-DiT-10B as the paper trains it (section 5.1, table 7): 512 px, then 1024 px, batch 4096.

Command:  lidit train --config=configs/lidit_10b.py:v5p:8x8x16 --workdir=runs/lidit-10b-512px \\
              --config.data.path=TARS
          and then the same with :1024px,v5p:8x8x16 and another workdir: it starts from the averaged
          weights of the first (`training.init_from`).
Hardware: not run here; the paper does not name its own. docs/plans.md predicts step time, memory
          and chip-hours for every topology below; GPU nodes: lidit plan --topology=h100:8x32.
Expected: T2I-CompBench color 83.78, shape 68.03, texture 78.50; GenEval 0.76; DPG-Bench 84.60
          (the paper's table 1, after fine-tuning at 1024 px, with its own data of 1B images).

Choices behind the colon, in any order: `1024px` for the second stage (its 100,000 steps are ours),
a topology of the table, `2slices` or `4slices` of it, `head128` for 22 heads of 128 channels
instead of 44 of 64 (the same parameters, faster on TPUs), `bf16moments` for half-size first
moments, `online` to encode captions while training, `unfiltered` for images with one caption and
without scores. XLA's flags follow the chips (`lidit_jax/hardware/xla_flags.py`). See lidit_1b.py
about data, encoders and autoencoder. 2816 = 256 * 11: the width divides over at most 256 devices;
32 of them, with 88 rows each, is the most that needs no padding (docs/plans.md, "Compiled"), and 64
or 128, padded by a tenth, leave v5e and v6e the memory.
"""

from lidit_jax.config import Choices, Placement, default_config

CHOICES = Choices(
    variants={
        "1024px": {
            "data.image_size": 1024,
            "data.filters.min_width": 1024,
            "data.filters.min_height": 1024,
            "training.init_from": "runs/lidit-10b-512px",
            "training.steps": 100_000,
        },
        "head128": {"model.heads": 22},
        "bf16moments": {"optimizer.momentum_dtype": "bfloat16"},
        "online": {"data.text_features": "online", "data.encode_steps": 4},
        "unfiltered": {
            "data.filters.scores": (),
            "data.filters.captions_without": (),
            "data.captions.columns": (),
            "data.captions.rates": (),
        },
    },
    placements={
        "v5e:16x16": {512: Placement(128, "dots", 2), 1024: Placement(128, "branches", 1)},
        "v5p:4x8x8": {512: Placement(32, "dots", 8), 1024: Placement(32, "dots", 2)},
        "v5p:8x8x16": {512: Placement(32, "dots", 4), 1024: Placement(32, "dots", 2)},
        "v6e:16x16": {512: Placement(64, "dots", 4), 1024: Placement(64, "dots", 1)},
        # 128 chips, which JAX sees as 256 devices of 94.75 GiB each.
        "tpu7x:4x4x8": {512: Placement(32, "dots", 8), 1024: Placement(32, "dots", 2)},
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
    # As lidit_1b.py, with all of the data.
    config.data.source = "webdataset"
    config.data.filters.scores = ("aesthetic>=4.7",)
    config.data.filters.min_width = 512
    config.data.filters.min_height = 512
    config.data.filters.captions_without = ("url", "tags")
    config.data.captions.columns = ("caption", "synthetic")
    config.data.captions.rates = (0.5, 0.5)
    config.data.image_size = 512
    config.model.width = 2816
    config.model.depth = 48
    config.model.heads = 44
    config.model.patch = 2
    config.model.remat = "full"
    config.training.batch_size = 4096
    config.training.steps = 1_000_000
    return config
