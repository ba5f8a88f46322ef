"""Text to emoji at 64 px: the demo model's weights, on the 3,770 images of Noto Color Emoji.

Command:  lidit train --config=configs/emoji.py --workdir=runs/emoji
          needs the font (Debian: fonts-noto-color-emoji) and lidit-jax[emoji]
Hardware: one GPU, or two CPU cores in several runs: the same command continues.
Expected: not trained yet.

Half of the captions are English and half Chinese, drawn anew in each epoch. SmolLM2 and MiniLM were
trained on English, so Chinese prompts are read byte by byte. The network must be the demo's, whose
weights it starts from (configs/demo_gpu.py).
"""

from lidit_jax.config import default_config


def get_config():
    config = default_config()
    config.encoders.sources = ("smollm2", "minilm")
    config.encoders.dtype = "bfloat16"
    config.encoders.max_prompt_tokens = 64
    config.data.source = "emoji"
    config.data.captions.columns = ("en", "zh")
    config.data.captions.rates = (0.5, 0.5)
    config.data.image_size = 64
    config.data.buckets.shapes = 1
    config.data.validation_records = 128
    config.vae.source = "pixels"

    config.model.width = 256
    config.model.depth = 7
    config.model.heads = 4
    config.model.patch = 4
    config.model.position = "conv+rope"
    config.model.dtype = "float32"

    config.diffusion.process = "flow"
    config.diffusion.prediction = "x0"
    config.diffusion.loss = "velocity"
    config.diffusion.shift = 6.0
    config.sampling.sampler = "euler_ancestral"
    config.sampling.steps = 32
    config.sampling.guidance = 4.0

    config.optimizer.learning_rate = 5e-4
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 100
    config.optimizer.schedule = "warmup_stable_decay"
    config.optimizer.decay_steps = 1_500
    config.training.init_from = "demo"
    config.training.batch_size = 16
    config.training.ema_decay = 0.998
    config.training.steps = 6_000
    config.training.log_every = 50
    config.training.eval_every = 500
    config.training.image_every = 500
    config.training.checkpoint_every = 250
    config.training.prompts = (
        "red apple", "grinning face", "sunflower", "rocket",
        "cat face", "红心", "彩虹", "西瓜",
    )  # fmt: skip
    return config
