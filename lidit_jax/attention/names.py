"""The names that attention gives to what a rematerialization policy may keep."""

ATTENTION_OUTPUT = "attention_output"
"""The result of a kernel and, for splash, the sums of its softmax: with both kept, the backward
pass runs no forward kernel again."""
CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"
"""JAX's primitive of cuDNN's forward kernel, whose results the policies can keep."""
