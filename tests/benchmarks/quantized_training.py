"""Loss curves of training with exact products, int8 and fp8: the same model, data and draws.

    python -m tests.benchmarks.quantized_training [--steps 1000] [--seeds 2] [--png FILE]

It trains `tests/tiny_recipe.py` (32 px scenes, two blocks of width 32) on random encoders. A CPU
computes fp8 products in float32 on rounded operands, so this says what rounding does to learning,
and nothing about speed.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from lidit_jax.config.load import load_recipe

from ..tiny_encoders import save_encoder

KINDS = ("", "int8", "fp8")
RECIPE = Path(__file__).parents[1] / "tiny_recipe.py"


def curve(folder: Path, kind: str, seed: int, steps: int) -> tuple[list[float], float]:
    """Training losses step by step, and the last validation loss of the averaged weights."""
    from lidit_jax.training.loop import train

    encoders = tuple(str(folder / family) for family in ("llama", "bert"))
    settings = [f"encoders.sources={encoders}", f"data.cache_dir={folder / 'data'}"]
    settings += ["data.train_records=2048", f"seed={seed}", f"training.quantization={kind}"]
    every = ("eval_every", "image_every", "checkpoint_every")
    settings += [f"training.{name}={steps}" for name in ("steps", *every)]
    settings += ["training.ema_decay=0.99", "model.dtype=bfloat16"]
    workdir = folder / f"{kind or 'exact'}-{seed}"
    train(load_recipe(str(RECIPE), settings), workdir)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    (validation,) = [r["validation_loss_ema"] for r in records if "validation_loss_ema" in r]
    return losses, validation


def draw(curves: dict[str, np.ndarray], target: Path) -> None:
    """Mean losses over windows of 20 steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    for kind, losses in curves.items():
        windows = losses[: len(losses) // 20 * 20].reshape(-1, 20).mean(axis=1)
        axes.plot(20 * np.arange(1, len(windows) + 1), windows, label=kind or "bfloat16")
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.legend()
    figure.savefig(target, dpi=120, bbox_inches="tight")


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    rows, curves = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in ("llama", "bert"):
            save_encoder(folder / family, family)
        for kind in KINDS:
            results = [
                curve(folder, kind, seed, arguments.steps) for seed in range(arguments.seeds)
            ]
            curves[kind] = np.mean([losses for losses, _ in results], axis=0)
            last = curves[kind][-max(arguments.steps // 10, 1) :].mean()
            rows.append((kind or "bfloat16", last, np.mean([loss for _, loss in results])))
    print("| products of the blocks | training loss, last tenth | validation loss (exact) |")
    print("|---|---|---|")
    for kind, last, validation in rows:
        print(f"| {kind} | {last:.4f} | {validation:.4f} |")
    if arguments.png:
        draw(curves, arguments.png)


if __name__ == "__main__":
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain reads them, and nobody else has parsed them
    main()
