"""LI-DiT-10B as the paper first trains it (section 5.1, table 7): 512 px, batch 4096, > 1M steps.

Command:  lidit train --config=configs/lidit_10b.py --workdir=DIR --config.data.path=IMAGES \\
              --config.vae.source=VAE --config.encoders.sources="('LLAMA', 'QWEN')"
Hardware: not run here; the paper does not name its own.
Expected: T2I-CompBench colour 83.78, shape 68.03, texture 78.50; GenEval 0.76; DPG-Bench 84.60
          (the paper's table 1, after fine-tuning at 1024 px, with its own data of 1B images).

See lidit_1b.py about the encoders. 2816 = 256 * 11: shard the width over at most 256 devices.
"""

from lidit_jax.recipes import default_config


def get_config():
    config = default_config()
    config.encoders.sources = (
        "xtuner/llava-llama-3-8b-v1_1-transformers",
        "llava-hf/llava-interleave-qwen-7b-hf",
    )
    config.data.source = "folder"
    config.data.image_size = 512
    config.model.width = 2816
    config.model.depth = 48
    config.model.heads = 44
    config.model.patch = 2
    config.model.remat = "full"
    config.training.batch_size = 4096
    config.training.steps = 1_000_000
    return config
