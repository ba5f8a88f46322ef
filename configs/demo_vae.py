"""The demo's autoencoder: 64 px scenes to 8x8x16 latents and back.

Command:  lidit train --config=configs/demo_vae.py --workdir=runs/demo_vae
Hardware: two x86 CPU cores, no accelerator.
"""

from lidit_jax.config import default_config


def get_config():
    config = default_config()
    config.training.task = "vae"
    config.vae.width = 64
    config.vae.blocks = 2
    config.vae.kl_weight = 1e-4
    config.data.train_records = 200_000
    config.data.validation_records = 256
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.training.batch_size = 32
    config.training.steps = 1500
    config.training.ema_decay = 0.995
    config.training.eval_every = 250
    config.training.image_every = 250
    config.training.checkpoint_every = 250
    return config
