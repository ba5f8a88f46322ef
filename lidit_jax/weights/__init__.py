"""Files of weights: Hugging Face folders, GGUF files and safetensors, read into JAX arrays.

Tensors go from mapped files straight to the devices. Which tensor fills which parameter is stated
in one table of names per model. Nothing is ever unpickled.
"""
