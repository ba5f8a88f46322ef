"""A model that trains in a blink, for the tests: 32 px scenes, 16 tokens, two random encoders.

Command:  lidit train --config=tests/tiny_recipe.py --workdir=DIR
          --config.encoders.sources="('DECODER', 'BERT')" --config.data.cache_dir=CACHE
          with two folders of `tests.tiny_encoders.save_encoder`
Hardware: any; a minute.
"""

from lidit_jax.config import default_config


def get_config():
    config = default_config()
    config.encoders.instruction = "Draw:"
    config.encoders.max_prompt_tokens = 96
    config.data.image_size = 32
    config.data.train_records = 64
    config.data.distinct_captions = 16
    config.data.validation_records = 24

    config.model.width = 32
    config.model.depth = 2
    config.model.heads = 4
    config.model.patch = 8
    config.model.position = "conv+rope"
    config.model.refiner.blocks = 1
    config.model.dtype = "float32"

    config.diffusion.process = "flow"
    config.diffusion.prediction = "velocity"
    config.sampling.sampler = "euler"
    config.sampling.steps = 3
    config.sampling.guidance = 2.0

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 4
    config.training.batch_size = 16
    config.training.ema_decay = 0.9
    config.training.steps = 8
    config.training.log_every = 1
    config.training.eval_every = 4
    config.training.image_every = 8
    config.training.checkpoint_every = 4
    config.training.prompts = ("a red circle", "two blue stars")
    return config
