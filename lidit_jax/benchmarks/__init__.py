"""Speed measurements of this code and PyTorch, interleaved in one run on the same machine.

This is for `lidit bench`, whose `all` runs every benchmark and checks the GPU's attention kernel.
Image quality is measured in `lidit_jax.evaluation`, speed on hardware that is not present is
predicted in `lidit_jax.planning`.
"""

KINDS = ("attention", "step", "sample", "encode", "data")
"""Operations that `lidit bench` can time; each is a module here with `CANDIDATES`."""
