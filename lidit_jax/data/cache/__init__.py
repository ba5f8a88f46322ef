"""Cache of frozen models' outputs: latents of all images, and text features of all captions."""
