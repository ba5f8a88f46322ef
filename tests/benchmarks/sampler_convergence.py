"""Draws docs/sampler_convergence.png: the error of every sampler against its number of steps.

python -m tests.benchmarks.sampler_convergence [--out docs/sampler_convergence.png]
"""

import argparse

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

from tests.diffusion import gaussian

COUNTS = [8, 16, 32, 64, 128, 256, 512]
TITLES = {"ddpm": "DDPM (linear betas)", "flow": "rectified flow"}
ALIASES = {"ddpm": ("ddim", "euler_ancestral"), "flow": ()}  # the same curve as another sampler
LABELS = {
    ("ddpm", "euler"): "euler = ddim",
    ("ddpm", "ddpm"): "ddpm = euler_ancestral",
}
STYLES = {
    "euler": ("#1b6ca8", "o"),
    "ddpm": ("#7fb2d8", "o"),
    "euler_ancestral": ("#7fb2d8", "o"),
    "heun": ("#c8553d", "s"),
    "dpm++2m": ("#3a7d44", "^"),
    "dpm++2m_sde": ("#9bc53d", "^"),
    "unipc": ("#5f3dc4", "D"),
}


def draw(out: str) -> None:
    """Computes the errors, exactly, and writes the picture."""
    errors = gaussian.errors(COUNTS)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, process in zip(axes, TITLES, strict=True):
        for (of, name), values in errors.items():
            if of != process or name in ALIASES[process]:
                continue
            order = gaussian.order(COUNTS[2:-1], values[2:-1])
            color, marker = STYLES[name]
            label = f"{LABELS.get((process, name), name)}: {order:.1f}"
            axis.loglog(COUNTS, values, color=color, marker=marker, markersize=4, label=label)
        axis.set_title(TITLES[process], fontsize=11)
        axis.set_xlabel("steps")
        axis.set_xticks(COUNTS, [str(n) for n in COUNTS])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.legend(title="measured order", fontsize=8, title_fontsize=8, frameon=False)
    axes[0].set_ylabel("error of the standard deviation")
    figure.suptitle(
        "A Gaussian with known score: deviation 0.5, Karras spacing, no sampling error", fontsize=11
    )
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs/sampler_convergence.png")
    draw(parser.parse_args().out)
