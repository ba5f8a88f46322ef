"""Fine-tuning on your own pictures: the demo model's weights, a few hundred small steps.

Command:  lidit train --config=configs/finetune.py --workdir=runs/mine \\
              --config.data.path=my-pictures
          my-pictures holds pictures, each with a text file of its name (cat.jpg, cat.txt)
Hardware: two x86 CPU cores, no accelerator; 7 to 27 images/s beside other work. The whole
          run: 8 minutes, in which the two cores worked 5 minutes for it together.
Expected: measured once, seed 0, on 61 emoji (Noto Color Emoji, captions such as "a red heart"):
          loss 0.544 over the last ten steps, and 0.438 of the averaged weights on every 20th
          picture, all of them trained on. On 12 other emoji, which no step saw, the averaged
          weights go from 3.749 (the demo) to 0.939 after 100 steps, 0.908 after 200, 0.923 at the
          end. Of 16 captions it trained on, by eye: two hearts are right; apple, tomato, circle,
          pineapple and rainbow can be guessed; nine, among them all animals, are patches of color.

The network must be the demo's, whose weights it starts from (configs/demo_gpu.py). So few pictures
are soon learned by heart: the loss on others is lowest before the end.
"""

from lidit_jax.config import default_config


def get_config():
    config = default_config()
    config.encoders.sources = ("smollm2", "minilm")
    config.encoders.dtype = "bfloat16"
    config.encoders.max_prompt_tokens = 64
    config.data.source = "folder"
    config.data.image_size = 64
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
