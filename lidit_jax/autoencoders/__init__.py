"""Image autoencoders (VAEs), which map pixels to the latents of latent diffusion and back.

It holds a small network to train, networks that load diffusers' weights, and the frozen autoencoder
of a text-to-image model. The training loss is in `lidit_jax.training`, cached latents in
`lidit_jax.data`.
"""
