"""PyTorch interoperability: an equivalent PyTorch model, export, import and a parity check.

`layers.py`, `model.py` and `sampling.py` are copied into each exported folder and run without JAX.
The JAX network is in `lidit_jax.models`. `hunyuan_refiner` imports HunyuanVideo's refiner; encoders
of other projects are read by `lidit_jax.weights`.
"""
