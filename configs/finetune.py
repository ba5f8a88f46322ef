"""Fine-tuning on your own images: the demo model's weights, a few hundred small steps.

Command:  lidit train --config=configs/finetune.py --workdir=runs/mine \\
              --config.data.path=my-images
          my-images holds images, each with a text file of the same name (cat.jpg, cat.txt)
Hardware: two x86 CPU cores, no accelerator. 100 steps took 19 minutes while other programs kept
          both cores busy; it was not timed on an idle machine.
Expected: the first 101 steps were run, seed 0, on 61 emoji (Noto Color Emoji, captions such as "a
          red heart"): the EMA weights' loss on every 20th training image was 0.667 after 50 steps
          and 0.609 after 100. By then the eight images of the grid are patches of color with rough
          outlines. The earlier demo model (48 px), after all 300 steps, drew two hearts correctly;
          apple, tomato and rainbow were recognizable; animals were patches of color.

The network must be the demo's, whose weights it starts from (configs/demo_gpu.py). So few images
are soon memorized: the loss on others is lowest before the end.
"""

from lidit_jax.config import default_config


def get_config():
    config = default_config()
    config.encoders.sources = ("smollm2", "minilm")
    config.encoders.dtype = "bfloat16"
    config.encoders.max_prompt_tokens = 64
    config.data.source = "folder"
    config.data.image_size = 64
    config.data.buckets.shapes = 5
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
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "warmup_stable_decay"
    config.optimizer.decay_steps = 100
    config.training.init_from = "demo"
    config.training.batch_size = 8
    config.training.ema_decay = 0.98
    config.training.steps = 300
    config.training.log_every = 10
    config.training.eval_every = 50
    config.training.image_every = 50
    config.training.checkpoint_every = 100
    return config
