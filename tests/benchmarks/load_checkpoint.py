"""Loading a large language model's checkpoint, beside a plain read of the same files. Linux only.

    python -m tests.benchmarks.load_checkpoint [--parameters 8e9] [--dtype bfloat16] [--folder DIR]

Writes random bfloat16 weights in the shape of LLaMA-3-8B, with as many blocks as come closest to
the wanted number of parameters; reads the files once without looking at them; loads them; deletes
them. The kernel's copy of the files is dropped before either. `beyond` is the peak of the memory
that no file stands behind, less the loaded parameters.
"""

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from lidit_jax.weights import huggingface
from lidit_jax.weights.tables import DECODER

from .memory import PeakMemory

_WIDTH, _FFN, _KEYS, _WORDS = 4096, 14336, 1024, 128256
_BLOCK = {
    "input_layernorm": (_WIDTH,),
    "self_attn.q_proj": (_WIDTH, _WIDTH),
    "self_attn.k_proj": (_KEYS, _WIDTH),
    "self_attn.v_proj": (_KEYS, _WIDTH),
    "self_attn.o_proj": (_WIDTH, _WIDTH),
    "post_attention_layernorm": (_WIDTH,),
    "mlp.gate_proj": (_FFN, _WIDTH),
    "mlp.up_proj": (_FFN, _WIDTH),
    "mlp.down_proj": (_WIDTH, _FFN),
}
_OUTSIDE = {"model.embed_tokens.weight": (_WORDS, _WIDTH), "model.norm.weight": (_WIDTH,)}
_PARAMETERS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_FILE_BYTES = 5 * 10**9
_MARGIN = 3 * 10**9
"""Memory left over for the loader itself, the compiler and the rest of the machine."""
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1.15}


def tensor_shapes(parameters: float) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes by their names in the checkpoint, and the number of blocks."""
    outside, block = (sum(map(np.prod, shapes.values())) for shapes in (_OUTSIDE, _BLOCK))
    blocks = max(round((parameters - outside) / block), 1)
    shapes = dict(_OUTSIDE)
    for i in range(blocks):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in _BLOCK.items()}
    return shapes, int(blocks)


def parameter_shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    """The same as our decoder keeps them: stacked, linear maps as [in, out]."""
    stacked = {f"layers/{name}": (blocks, *_BLOCK[of][::-1]) for name, of in _PARAMETERS.items()}
    return {"embedding": (_WORDS, _WIDTH), **stacked, "final_norm": (_WIDTH,)}


def write_checkpoint(folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[Path]:
    """Random weights between 2**-7 and 1, the same gigabyte again and again."""
    bits = np.random.default_rng(0).integers(0x3C00, 0x3F80, 1 << 26, np.uint16)
    noise = np.concatenate([bits] * 9).view(ml_dtypes.bfloat16)
    files, weight_map = [], {}
    names = list(shapes)
    while names:
        header, end, part = {}, 0, []
        while names and end < _FILE_BYTES:
            name = names.pop(0)
            size = 2 * int(np.prod(shapes[name]))
            place = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [end, end + size]}
            header[name], end = place, end + size
            part.append(size // 2)
        file = folder / f"part-{len(files)}.safetensors"
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with file.open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            for count in part:
                stream.write(memoryview(noise[:count].view(np.uint8)))
            stream.flush()
            os.fsync(stream.fileno())
        weight_map |= dict.fromkeys(header, file.name)
        files.append(file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return files


def read_plainly(files: list[Path]) -> None:
    """What `cat FILES > /dev/null` does."""
    buffer = bytearray(1 << 23)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def cold_seconds(work: Callable[[], None], files: list[Path]) -> float:
    """Time of `work` with none of the files in the kernel's cache."""
    for file in files:
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def check_room(folder: Path, file_bytes: int, loaded_bytes: float) -> None:
    """Ends here, with a sentence, rather than by the kernel in the middle."""
    if (free := shutil.disk_usage(folder).free) < file_bytes + _MARGIN:
        sys.exit(f"{folder} has {free / 1e9:.0f} GB left, {file_bytes / 1e9:.0f} are needed")
    info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(info["MemAvailable"].split()[0]) * 1024
    if available < loaded_bytes + _MARGIN:
        sys.exit(
            f"{available / 1e9:.0f} GB of memory are free, {(loaded_bytes + _MARGIN) / 1e9:.0f} "
            "are needed: give fewer --parameters"
        )


def main() -> None:
    """Writes, reads, loads and deletes; prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=float, default=8e9)
    parser.add_argument("--dtype", choices=_ITEM_BYTES, default="bfloat16")
    parser.add_argument("--folder", type=Path, help="where there is room for the files")
    arguments = parser.parse_args()

    shapes, blocks = tensor_shapes(arguments.parameters)
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        check_room(folder, 2 * count, _ITEM_BYTES[arguments.dtype] * count)
        files = write_checkpoint(folder, shapes)
        plain = cold_seconds(lambda: read_plainly(files), files)
        loaded = []

        def load() -> None:
            files = huggingface.safetensors_files(folder)
            params = huggingface.load_params(
                files, DECODER, parameter_shapes(blocks), arguments.dtype
            )
            loaded.append(jax.block_until_ready(params))

        with PeakMemory() as peak:
            seconds = cold_seconds(load, files)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded))
    print("| parameters | blocks | files | plain read | load | as | result | beyond |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {count / 1e9:.2f} B | {blocks} | {2 * count / 1e9:.1f} GB "
        f"| {2 * count / 1e9 / plain:.2f} GB/s | {2 * count / 1e9 / seconds:.2f} GB/s "
        f"| {arguments.dtype} | {size / 1e9:.1f} GB | {(peak.grown - size) / 1e9:.2f} GB |"
    )


if __name__ == "__main__":
    main()
