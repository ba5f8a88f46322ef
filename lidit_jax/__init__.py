"""LI-DiT (arXiv 2406.11831) in JAX/Flax: text-to-image training and sampling, laptop to TPU pod.

```python
from lidit_jax import Pipeline

images = Pipeline.from_checkpoint("demo")(["a red circle"], seed=0)  # uint8 [B, H, W, 3]
```

Importing the package is fast: `Pipeline` is imported on first use. The command line `lidit` is in
`lidit_jax.commands`; each subpackage states its purpose in its docstring.
"""

import os
from typing import TYPE_CHECKING, Any

from lidit_jax.hardware.libtpu import prepare_libtpu
from lidit_jax.hardware.xla_flags import cpu_variables

if TYPE_CHECKING:
    from lidit_jax.sampling.pipeline import Pipeline as Pipeline

    __version__: str

__all__ = ["Pipeline", "__version__"]

# Here, because libtpu and XLA read their settings when JAX first initializes its devices, which
# any program that uses the package may do.
prepare_libtpu()
os.environ.update(cpu_variables())


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from lidit_jax.sampling.pipeline import Pipeline

        return Pipeline
    if name == "__version__":
        from importlib.metadata import version

        return version("lidit-jax")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
