"""Options of `lidit sample`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lidit_jax.commands.arguments import (
    CHECKPOINT_HELP,
    add_command,
    add_encoder_option,
    aspect_ratio,
    fraction,
    guidance_scale,
    image_size,
    non_negative_int,
    positive_int,
)
from lidit_jax.commands.device_options import add_device_options
from lidit_jax.io.paths import to_path

_EXAMPLES = """\
  lidit sample --checkpoint=demo --prompt="a red circle" --out=circle.png
  lidit sample --checkpoint=demo --prompt="a red circle" --prompt="two blue stars" --out=images/
  lidit sample --checkpoint=runs/demo --prompts=prompts.txt --grid --out=grid.png
  lidit sample --checkpoint=demo --prompt="a red circle" --sampler=unipc --steps=10 --out=x.png
  lidit sample --checkpoint=demo --prompt="a star" --negative-prompt="cyan" --out=x.png
  lidit sample --checkpoint=demo --prompt="a red circle" --count=4 --variation=0.3 --out=near/
  lidit sample --checkpoint=demo --prompt="a cross" --blend-with="a star" --count=5 --out=between/
  lidit sample --checkpoint=demo --prompt="a blue star" --image=x.png --strength=0.7 --out=y.png
  lidit sample --checkpoint=demo --prompt="a blue square and a green star" --image=x.png \\
      --mask=m.png --out=y.png                     the prompt describes the whole image
  lidit sample --again=x.png --out=same.png

A single image is written as one PNG, several as numbered PNGs in a folder, or with --grid as one
captioned image. Each PNG records prompt, seed, settings and the checkpoint's sha256 in its text
chunks; --again reads them and draws the same image.

which sampler: all except "heun" evaluate the network once per step. "unipc" and "dpm++2m" come
closest to the exact solution in 8 to 20 steps; "euler" (flow) and "ddim" (DDPM) are the basic
methods; "ddpm", "euler_ancestral" and "dpm++2m_sde" add noise in every step and need more steps.
--cache-interval=2 computes every other evaluation in full and reuses most of it in the next one.
which guidance: raise --guidance until the image follows the prompt; if colors saturate, add
--guidance-rescale=0.7, guide only in the middle (--guidance-low=0.2 --guidance-high=0.8), or use
--guidance-method=apg. For flow models that are not fully trained, "cfg_zero" helps.
--guide-checkpoint guides away from an earlier checkpoint instead of the empty prompt.
"""

SETTINGS = (
    "sampler",
    "steps",
    "spacing",
    "shift",
    "eta",
    "cache_interval",
    "guidance_method",
    "guidance_low",
    "guidance_high",
    "guidance_rescale",
    "zero_steps",
    "apg_parallel",
    "apg_norm",
    "apg_momentum",
)
"""Options that are fields of `config.sampling`."""

DEFAULTS = {
    "prompt": (),
    "count": 1,
    "seed": 0,
    "raw": False,
    "negative_prompt": "",
    "variation": 0.0,
    "variation_seed": 1,
    "blend_with": "",
}
"""Defaults that do not depend on the checkpoint. They are not the parser's, so that --again can
detect options that were given."""

RECORDED = (*DEFAULTS, "prompts", "size", "aspect", "guidance", "blend", "strength", *SETTINGS)
"""Options whose values are in the record of --again."""

_OTHER_NAMES = {
    "--cfg-scale": "--guidance",
    "--guidance-scale": "--guidance",
    "--height": "--size=WIDTHxHEIGHT",
    "--negative-prompts": "--negative-prompt",
    "--num-images": "--count",
    "--num-images-per-prompt": "--count",
    "--num-inference-steps": "--steps",
    "--num-steps": "--steps",
    "--scheduler": "--sampler",
    "--weaker-checkpoint": "--guide-checkpoint",
    "--width": "--size=WIDTHxHEIGHT",
}
"""Names of options in other programs or older versions, and their names here."""


def add_sample(subparsers: Any, run: Callable[[argparse.Namespace], int]) -> None:
    """Add `lidit sample`, with `run` as its function."""
    parser = add_command(
        subparsers, "sample", "generate images from prompts", _EXAMPLES, run, _OTHER_NAMES
    )
    add = parser.add_argument
    add("--checkpoint", metavar="PATH|NAME", help=CHECKPOINT_HELP)
    add(
        "--raw",
        action="store_true",
        default=None,
        help="the raw weights instead of their moving average",
    )
    add_encoder_option(parser)
    add("--prompt", action="append", metavar="TEXT", help="description of the image; repeatable")
    add("--prompts", type=Path, metavar="FILE", help="a text file, one prompt per line")
    add("--out", required=True, type=to_path, metavar="FILE|DIR", help="a .png file, or a folder")
    add("--grid", action="store_true", help="write one captioned grid of all images")
    add("--again", type=Path, metavar="PNG", help="reproduce this image from its metadata")
    add("--size", type=image_size, metavar="PX|WxH", help="side, or width x height, in pixels")
    add("--aspect", type=aspect_ratio, metavar="W:H", help="shape, as training images of it")
    add("--seed", type=non_negative_int, metavar="K", help="seed of the noise (default: 0)")
    add("--count", type=positive_int, metavar="N", help="images per prompt (default: 1)")

    group = parser.add_argument_group("sampling (default: the checkpoint's settings)")
    add = group.add_argument
    add("--sampler", metavar="NAME", help="euler, heun, dpm++2m, unipc, ...; see below")
    add("--steps", type=positive_int, metavar="N", help="denoising steps")
    add("--spacing", metavar="NAME", help="spacing of the steps: trailing, linspace, ...")
    add("--shift", type=float, metavar="S", help="flow: above 1, more steps at high noise")
    add("--eta", type=fraction, metavar="E", help="ddim: fraction of fresh noise, 0 to 1")
    add(
        "--cache-interval",
        type=positive_int,
        metavar="N",
        help="compute every N-th evaluation in full and reuse most of it in the others; 1: off",
    )

    group = parser.add_argument_group("guidance")
    add = group.add_argument
    add("--guidance", type=guidance_scale, metavar="S", help="guidance scale; 1: no guidance")
    add("--negative-prompt", metavar="TEXT", help="guide away from this text")
    add("--guidance-method", metavar="NAME", help="cfg, apg, or for flow cfg_zero")
    add("--guidance-low", type=fraction, metavar="T", help="guide from here (0: the image) ...")
    add("--guidance-high", type=fraction, metavar="T", help="... to here (1: pure noise)")
    add("--guidance-rescale", type=fraction, metavar="R", help="preserve contrast: 0 to 1")
    add("--zero-steps", type=int, metavar="N", help="cfg_zero: first steps with zero velocity")
    add("--apg-parallel", type=fraction, metavar="P", help="apg: fraction of the parallel part")
    add("--apg-norm", type=float, metavar="R", help="apg: largest norm; 0: no limit")
    add("--apg-momentum", type=float, metavar="B", help="apg: momentum, usually negative")
    add(
        "--guide-checkpoint", metavar="PATH", help="autoguidance: guide away from this weaker model"
    )

    add_device_options(parser)

    group = parser.add_argument_group("variations, blends and image to image")
    add = group.add_argument
    add("--variation", type=fraction, metavar="V", help="rotate the noise by V, 0 to 1")
    add(
        "--variation-seed", type=non_negative_int, metavar="K", help="toward the noise of this seed"
    )
    add("--blend-with", metavar="TEXT", help="a second prompt")
    add(
        "--blend",
        type=fraction,
        metavar="W",
        help="weight of the second prompt; default: 0 to 1 over --count images",
    )
    add("--image", type=Path, metavar="FILE", help="start from this image")
    add(
        "--strength",
        type=fraction,
        metavar="S",
        help="fraction of --image to redraw (default: 0.6)",
    )
    add("--mask", type=Path, metavar="FILE", help="redraw only where this image is white")
