"""Names of the attention results that rematerialization policies can keep."""

ATTENTION_OUTPUT = "attention_output"
"""The result of a kernel and, for splash, the sums of its softmax: with both kept, the backward
pass does not rerun the forward kernel."""
CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"
"""JAX's primitive for cuDNN's forward kernel, whose results the policies can keep."""
