"""Another text encoder under a trained backbone: learning curves beside training from scratch.

    python -m tests.benchmarks.encoder_swap --out FOLDER [--steps 3000] [--captions 4000]

A small model learns scenes with MiniLM, as PixArt with T5: a projection in place of refiners, and
plain cross-attention. Then SmolLM2 with refiners takes MiniLM's place, as in
`configs/lidit_1b_from_pixart.py`: first with the backbone frozen but for the keys and values of its
cross-attention ("grown"), beside the same model from scratch ("scratch"). The curves are the scores
on scenes, and the validation losses, of the averaged weights. The runs resume where they stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lidit_jax.config.load import load_recipe

SMALL = (
    *(
        "data.image_size=48",
        "data.validation_records=256",
        "model.width=128",
        "model.depth=4",
        "model.heads=4",
    ),
    *("model.scan_unroll=4", "model.position=sincos", "model.cross_attention=plain"),
    *("model.refiner.pool=none", "encoders.max_prompt_tokens=64", "training.batch_size=32"),
    *("training.log_every=50", "training.image_every=0", "training.ema_decay=0.995"),
    *("training.score_prompts=8", "optimizer.schedule=constant", "optimizer.warmup_steps=50"),
    *("sampling.steps=16", "optimizer.learning_rate=1e-3", "training.prompts=('a red circle',)"),
)
"""Of the recipe `demo`: pixels, flow, two encoders."""
LIKE_PIXART = (
    *("encoders.sources=('minilm',)", "encoders.instruction=''", "model.refiner.blocks=0"),
    *("model.refiner.projection=mlp", "model.refiner.feature_norm=none"),
)
NEW = ("encoders.sources=('smollm2',)", "encoders.instruction=''")
GROWN = (
    "training.init_new=('linguistic_refiner.*',)",
    "optimizer.freeze=('(?!linguistic_refiner|blocks/cross_attention/(key|value)).*',)",
)
CURVES = ("scene_score", "validation_loss_ema")


def curves(
    workdir: Path, settings: tuple[str, ...], steps: int, points: int
) -> dict[str, list[tuple[int, float]]]:
    """Train, and return score and loss by step."""
    from lidit_jax.training.loop import train

    every = max(steps // points, 1)
    lengths = [f"training.{name}={every}" for name in ("score_every", "eval_every")]
    lengths += [f"training.steps={steps}", f"training.checkpoint_every={every}"]
    train(load_recipe("demo", [*SMALL, *settings, *lengths]), workdir)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        name: [(record["step"], record[name]) for record in records if name in record]
        for name in CURVES
    }


def draw(found: dict[str, Any], target: Path) -> None:
    """One panel per curve."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(CURVES), figsize=(10, 3.5))
    for axes, name in zip(panels, CURVES, strict=True):
        for run, lines in found.items():
            axes.plot(*zip(*lines[name], strict=True), marker=".", label=run)
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
    panels[0].legend()
    figure.savefig(target, dpi=120, bbox_inches="tight")


def reached(line: list[tuple[int, float]], score: float) -> str:
    """First step with at least a score."""
    return next((f"{step:,}" for step, value in line if value >= score), "not reached")


def main() -> None:
    """Trains the three models, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--captions", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out, length = arguments.out, (arguments.steps, arguments.points)
    before = out / "minilm"
    records = 6 * arguments.captions
    same = (
        *(f"seed={arguments.seed}", f"data.distinct_captions={arguments.captions}"),
        f"data.train_records={records}",
    )
    runs = {
        "minilm": LIKE_PIXART,
        "grown": (*NEW, *GROWN, f"training.init_from={before}"),
        "scratch": NEW,
    }
    found = {name: curves(out / name, (*own, *same), *length) for name, own in runs.items()}
    (out / "encoder_swap.json").write_text(json.dumps(found, indent=1))
    draw(found, out / "encoder_swap.png")
    goal = found["minilm"]["scene_score"][-1][1]
    print(f"| model | last score | last loss | step at which the score is {goal:.1%} |")
    print("|---|---|---|---|")
    for name, lines in found.items():
        (_, score), (_, loss) = (lines[curve][-1] for curve in CURVES)
        print(f"| {name} | {score:.1%} | {loss:.4f} | {reached(lines['scene_score'], goal)} |")


if __name__ == "__main__":
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain reads them, and nobody else has parsed them
    main()
