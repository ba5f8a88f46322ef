"""Image autoencoders: from pixels to latents, in which diffusion works, and back.

Networks to train, networks in diffusers' layout, and the frozen one behind a text-to-image model.
"""
