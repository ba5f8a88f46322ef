"""Image autoencoders: from pixels to latents and back."""
