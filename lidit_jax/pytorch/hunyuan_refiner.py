"""Import of HunyuanVideo's token refiner, the one public trained refiner of this design.

It is the `context_embedder` of diffusers' HunyuanVideo transformer (arXiv 2412.03603), and has the
same blocks as `LinguisticRefiner`. What differs are fields of `RefinerConfig`: its features are not
normed, the pooled vector is their raw mean over the prompt, and it embeds the time (0 to 1000)
itself. HunyuanVideo crops its instruction before the refiner: features of LLaMA-3-8B, third block
from the end, cropped, give what it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from lidit_jax.config.schema import RefinerConfig
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.models.refiner import LinguisticRefiner
from lidit_jax.weights.huggingface import load_params, read_json, safetensors_files
from lidit_jax.weights.parameter_paths import by_path
from lidit_jax.weights.tables import Rule

_PREFIX = r"context_embedder\."
_DESCRIPTION, _WEIGHTS = "refiner.json", "refiner.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TOP = {
    "proj_in": "projection",
    "time_text_embed.text_embedder.linear_1": "pooled_embedder/up",
    "time_text_embed.text_embedder.linear_2": "pooled_embedder/down",
    "time_text_embed.timestep_embedder.linear_1": "time_embedder/mlp/up",
    "time_text_embed.timestep_embedder.linear_2": "time_embedder/mlp/down",
}
_BLOCK = {
    "norm1": "attention_norm",
    "norm2": "mlp_norm",
    "norm_out.linear": "gate/linear",
    "attn.to_q": "self_attention/query",
    "attn.to_k": "self_attention/key",
    "attn.to_v": "self_attention/value",
    "attn.to_out.0": "self_attention/out",
    "ff.net.0.proj": "mlp/up",
    "ff.net.2": "mlp/down",
}


@dataclass(frozen=True)
class ImportedRefiner:
    """Trained linguistic refiner with the configuration that it requires."""

    params: Any
    """Nested parameters of `module`, float32."""
    width: int
    heads: int
    feature_width: int
    """Width D_k of its input LLM features."""
    config: RefinerConfig

    @property
    def module(self) -> LinguisticRefiner:
        """Flax module: `refiner.module.apply({"params": refiner.params}, features, mask, t)`."""
        return LinguisticRefiner(self.width, self.heads, self.config, jnp.float32)

    @property
    def settings(self) -> dict[str, Any]:
        """Configuration fields and the values for which the model's refiners are equivalent."""
        own = asdict(self.config)
        del own["collaborative_blocks"]  # of the collaborative refiner
        del own["layer_mix"]  # it makes the features that the refiner reads
        fields = {f"model.refiner.{name}": value for name, value in own.items()}
        return {"model.width": self.width, "model.heads": self.heads} | fields


def load_hunyuan_refiner(path: str | Path) -> ImportedRefiner:
    """Load only the refiner of a HunyuanVideo transformer in diffusers' layout.

    Args:
      path: the transformer's folder (config.json beside one safetensors file, or several with an
        index), or that of the whole pipeline.

    Raises:
      LiditError: when it is missing, pickled, damaged, incomplete, not finite or of other shapes
        than its config.json says.
    """
    folder = _folder(Path(path).expanduser())
    config = read_json(folder / "config.json")
    try:
        heads = int(config["num_attention_heads"])
        width = heads * int(config["attention_head_dim"])
        blocks, feature_width = int(config["num_refiner_layers"]), int(config["text_embed_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise LiditError(
            f"{folder / 'config.json'} is not that of a HunyuanVideo transformer ({error}): give "
            "the folder `transformer` of the model in diffusers' layout"
        ) from error
    options = RefinerConfig(
        blocks=blocks, feature_norm="none", pool="prompt", pool_raw=True, own_time_embedder=True
    )
    refiner = ImportedRefiner({}, width, heads, feature_width, options)
    params = load_params(safetensors_files(folder), _table(blocks), _shapes(refiner), "float32")
    return ImportedRefiner(params, width, heads, feature_width, options)


def save_refiner(refiner: ImportedRefiner, folder: Path) -> None:
    """Write `refiner.safetensors` and `refiner.json` into an existing folder."""
    flat = by_path(refiner.params)
    data = safetensors.numpy.save({path: np.asarray(leaf) for path, leaf in flat.items()})
    description = {
        "format": 1,
        "width": refiner.width,
        "heads": refiner.heads,
        "feature_width": refiner.feature_width,
        "config": asdict(refiner.config),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with atomic_file(folder / _WEIGHTS) as file:
        file.write(data)
    with atomic_file(folder / _DESCRIPTION) as file:
        file.write(json.dumps(description, indent=2).encode())


def is_refiner(folder: Path) -> bool:
    """Return whether a folder was written by `save_refiner`."""
    return (folder / _DESCRIPTION).is_file()


def load_refiner(folder: Path) -> ImportedRefiner:
    """Load a refiner that `save_refiner` wrote.

    Raises:
      LiditError: when a file is missing or damaged.
    """
    description = read_json(folder / _DESCRIPTION)
    try:
        data = (folder / _WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != description["sha256"]:
            raise LiditError(f"{folder / 'refiner.safetensors'} is damaged: copy the folder again")
        flat = safetensors.numpy.load(data)
        options = RefinerConfig(**description["config"])
        width, heads, feature_width = (
            int(description[name]) for name in ("width", "heads", "feature_width")
        )
        params = flax.traverse_util.unflatten_dict(flat, sep="/")
        return ImportedRefiner(params, width, heads, feature_width, options)
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise LiditError(f"{folder} is damaged ({error}): copy the folder again") from error


def _folder(path: Path) -> Path:
    if path.suffix.lower() in _PICKLES:
        raise LiditError(
            f"{path} is pickled, which could run code, and is never opened: give the folder "
            "`transformer` of a HunyuanVideo in diffusers' layout, which has safetensors"
        )
    if path.is_file():
        path = path.parent
    if not path.is_dir():
        raise LiditError(f"{path} does not exist: give the folder of a HunyuanVideo transformer")
    pipeline = (path / "transformer" / "config.json").is_file()
    return path / "transformer" if pipeline else path


def _table(blocks: int) -> tuple[Rule, ...]:
    """Return the rules that map the refiner's tensors to parameters and skip all others."""
    modules = dict(_TOP)
    for i in range(blocks):
        modules |= {
            f"token_refiner.refiner_blocks.{i}.{theirs}": f"block_{i}/{ours}"
            for theirs, ours in _BLOCK.items()
        }
    rules = [Rule(re.compile(rf"(?!{_PREFIX}).*"), None)]
    for theirs, ours in modules.items():
        name = _PREFIX + re.escape(theirs)
        weight = ("scale", "") if ours.endswith("norm") else ("kernel", "transpose")
        rules.append(Rule(re.compile(rf"{name}\.weight"), f"{ours}/{weight[0]}", weight[1]))
        rules.append(Rule(re.compile(rf"{name}\.bias"), f"{ours}/bias"))
    return tuple(rules)


def _shapes(refiner: ImportedRefiner) -> dict[str, tuple[int, ...]]:
    features, mask = jnp.zeros((1, 1, refiner.feature_width)), jnp.ones((1, 1), bool)
    variables = jax.eval_shape(refiner.module.init, jax.random.key(0), features, mask, jnp.zeros(1))
    params = nn.unbox(variables["params"])
    return {path: leaf.shape for path, leaf in by_path(params).items()}
