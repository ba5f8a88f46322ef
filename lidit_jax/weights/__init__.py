"""Pretrained weights of other projects: Hugging Face folders, GGUF and safetensors as JAX arrays.

Tensors go from memory-mapped files straight to the devices. One table of names per model maps
tensors to parameters. Downloads, int8 quantization and a safetensors writer are here too. Nothing
is ever unpickled. The networks are in `lidit_jax.encoders` and `lidit_jax.autoencoders`,
checkpoints of this project in `lidit_jax.checkpoints`.
"""
