"""An autoencoder of the paper's kind (section 5.1): 8x, 16 channels, on your own images.

Command:  lidit train --config=configs/vae_16ch.py --workdir=DIR --config.data.path=IMAGES
          lidit export --checkpoint=DIR --out=VAE       then --config.vae.source=VAE
Hardware: not run at this size; 84 M parameters in bfloat16 need an accelerator. The tests train it
          at a tiny size. `--config.training.batch_size=` must fit the memory.
Expected: unknown. The paper gives neither data nor losses of its autoencoder. L1, KL and image
          gradients leave fine texture softer than Stable Diffusion's perceptual and adversarial
          losses, which are not implemented: see `validation_loss` (the L1 of pixels in -1 to 1)
          and the image grids.

The network is SD3's. IMAGES is a folder as for text-to-image training; its captions are not used.
The KL's weight is over means: it is 12 times the 1e-6 over sums of arXiv 2112.10752.
"""

from lidit_jax.config import default_config


def get_config():
    config = default_config()
    config.training.task = "vae"
    config.data.source = "folder"
    config.data.image_size = 256
    config.vae.architecture = "kl"
    config.vae.channels = 16
    config.vae.downsample = 8
    config.vae.width = 128
    config.vae.multipliers = (1, 2, 4, 4)
    config.vae.blocks = 2
    config.vae.dtype = "bfloat16"
    config.vae.reconstruction = "l1"
    config.vae.gradient_weight = 1.0
    config.vae.kl_weight = 1e-6
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "cosine"
    config.training.batch_size = 128
    config.training.steps = 200_000
    config.training.ema_decay = 0.999
    return config
