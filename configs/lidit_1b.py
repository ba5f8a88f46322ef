"""LI-DiT-1B as the paper trains it (section 5.1, table 7): 256 px, batch 2048, 500k steps.

Command:  lidit train --config=configs/lidit_1b.py --workdir=DIR --config.data.path=IMAGES \\
              --config.vae.source=VAE --config.encoders.sources="('LLAMA', 'QWEN')"
Hardware: not run here; the paper does not name its own.
Expected: T2I-CompBench colour 74.08, shape 59.34, texture 69.59; GenEval 0.60; DPG-Bench 81.65
          (the paper's table 1, with its own data of 30M images, LLMs and autoencoder).

The encoders named below are public stand-ins for the paper's LLaMA3-8B and Qwen1.5-7B, which its
authors tuned on images and did not release.
"""

from lidit_jax.recipes import default_config


def get_config():
    config = default_config()
    config.encoders.sources = (
        "xtuner/llava-llama-3-8b-v1_1-transformers",
        "llava-hf/llava-interleave-qwen-7b-hf",
    )
    config.data.source = "folder"
    config.data.image_size = 256
    config.model.width = 1152
    config.model.depth = 28
    config.model.heads = 16
    config.model.patch = 2
    config.model.remat = "full"
    config.training.batch_size = 2048
    config.training.steps = 500_000
    return config
