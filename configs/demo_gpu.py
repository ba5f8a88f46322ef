"""The model that ships with the package: scenes at 64 px, trained for minutes on one GPU.

Command:  lidit train --config=configs/demo_gpu.py --workdir=runs/demo-gpu
          or, with benchmarks first and a time limit for training:
          lidit bench all --out=DIR --then-train=configs/demo_gpu.py --train-minutes=4
Hardware: one NVIDIA GPU and 16 CPU cores, which draw the scenes while the GPU trains.
Expected: see lidit_jax/packaged/demo/README.md.

What differs from the recipe for CPUs (configs/demo.py), and why:
- patches of four pixels: with eight, dots, stripes and small stars could not be drawn;
- every image is new, drawn while training, with 300,000 captions instead of 16,000, half of them
  paraphrased and with both orders of a relation, so that positions can be learned;
- more scenes of the tasks with the lowest scores: positions, two objects, sizes and textures;
- a shift of 6 instead of 5: larger images need more noise to hide their colors (64/48 times 5).
"""

from lidit_jax.config import Choices, default_config

CHOICES = Choices(
    variants={
        "adamw": {"optimizer.name": "adamw"},
    }
)


def get_config():
    config = default_config()
    config.encoders.sources = ("smollm2", "minilm")
    config.encoders.dtype = "bfloat16"
    config.encoders.max_prompt_tokens = 64
    config.vae.source = "pixels"
    config.data.image_size = 64
    config.data.latents = "online"
    config.data.text_features = "online"
    config.data.workers = 14
    config.data.train_records = 8_000_000
    config.data.distinct_captions = 300_000
    config.data.validation_records = 512
    config.data.caption_style = "varied"
    config.data.textured_fraction = 0.25
    config.data.sized_fraction = 0.25
    # single object, colors, two objects, color attribution, counting, position, many
    config.data.scene_fractions = (0.06, 0.08, 0.18, 0.20, 0.16, 0.26, 0.06)

    config.model.width = 256
    config.model.depth = 7
    config.model.heads = 4
    config.model.patch = 4
    config.model.position = "conv+rope"
    config.model.dtype = "bfloat16"
    config.model.scan_unroll = 7

    config.diffusion.process = "flow"
    config.diffusion.prediction = "x0"
    config.diffusion.loss = "velocity"
    config.diffusion.shift = 6.0
    config.sampling.sampler = "euler_ancestral"
    config.sampling.steps = 32
    config.sampling.guidance = 4.0

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.warmup_steps = 300
    config.optimizer.schedule = "warmup_stable_decay"
    config.optimizer.decay_steps = 4_000
    config.training.batch_size = 256
    config.training.ema_decay = 0.999
    config.training.steps = 12_000
    config.training.log_every = 100
    config.training.eval_every = 2_000
    config.training.image_every = 4_000
    config.training.checkpoint_every = 4_000
    return config
