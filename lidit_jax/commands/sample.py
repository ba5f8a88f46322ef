"""`lidit sample`: from prompts to PNG files that remember how they were made."""

from __future__ import annotations

import argparse
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import (
    CHECKPOINT_HELP,
    add_command,
    add_encoder_option,
    aspect_ratio,
    fraction,
    guidance_scale,
    image_size,
    natural,
    positive_int,
)
from lidit_jax.commands.sample_inputs import (
    output_files,
    read_mask,
    read_picture,
    read_prompts,
    size_of_aspect,
)
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import to_path

if TYPE_CHECKING:
    from lidit_jax.config.schema import MeshConfig
    from lidit_jax.sampling.pipeline import Pipeline
    from lidit_jax.sampling.png_metadata import ImageRecord

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
      --mask=m.png --out=y.png                         the prompt says what the whole shows
  lidit sample --again=x.png --out=same.png

One image makes one PNG; several make a folder of numbered ones, or with --grid one captioned
picture. Each PNG records prompt, seed, settings and the checkpoint's sha256 in its text chunks;
--again reads them and draws the image once more.

which sampler: all but "heun" ask the network once a step. "unipc" and "dpm++2m" come closest to
the exact solution in 8 to 20 steps; "euler" (flow) and "ddim" (DDPM) are the plain methods;
"ddpm", "euler_ancestral" and "dpm++2m_sde" add noise on the way, which wants more steps.
--cache-interval=2 computes every other evaluation in full and reuses most of it in the next one.
which guidance: raise --guidance until the image follows the prompt; when colours burn, add
--guidance-rescale=0.7, guide only in the middle (--guidance-low=0.2 --guidance-high=0.8), or take
--guidance-method=apg. Under flow "cfg_zero" helps models that are not fully trained.
--weaker-checkpoint moves away from an earlier checkpoint instead of from the empty prompt.
"""

# Options that are fields of `config.sampling`.
_SETTINGS = (
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

# What is left out, where the checkpoint has no say. Not the parser's defaults: --again has to know
# what was given.
_DEFAULTS = {
    "prompt": (),
    "count": 1,
    "seed": 0,
    "raw": False,
    "negative_prompt": "",
    "variation": 0.0,
    "variation_seed": 1,
    "blend_with": "",
}

# Options that the record of --again answers.
_RECORDED = (*_DEFAULTS, "prompts", "size", "aspect", "guidance", "blend", "strength", *_SETTINGS)


def add_parser(subparsers: Any) -> None:
    """Adds `lidit sample`."""
    parser = add_command(subparsers, "sample", "make images from prompts", _EXAMPLES, run)
    add = parser.add_argument
    add("--checkpoint", metavar="PATH|NAME", help=CHECKPOINT_HELP)
    add(
        "--raw",
        action="store_true",
        default=None,
        help="the raw weights instead of their moving average",
    )
    add_encoder_option(parser)
    add("--prompt", action="append", metavar="TEXT", help="what to see; repeatable")
    add("--prompts", type=Path, metavar="FILE", help="a text file, one prompt a line")
    add("--out", required=True, type=to_path, metavar="FILE|DIR", help="a .png file, or a folder")
    add("--grid", action="store_true", help="one captioned picture of all images")
    add("--again", type=Path, metavar="PNG", help="draw this image once more, from its own record")
    add("--size", type=image_size, metavar="PX|WxH", help="side, or width x height, in pixels")
    add("--aspect", type=aspect_ratio, metavar="W:H", help="shape, at the area of training images")
    add("--seed", type=natural, metavar="K", help="noise (default: 0)")
    add("--count", type=positive_int, metavar="N", help="images a prompt (default: 1)")

    group = parser.add_argument_group("sampling (left out: as the checkpoint says)")
    add = group.add_argument
    add("--sampler", metavar="NAME", help="euler, heun, dpm++2m, unipc, ...; see below")
    add("--steps", type=positive_int, metavar="N", help="denoising steps")
    add("--spacing", metavar="NAME", help="of the steps: trailing, linspace, leading, karras")
    add("--shift", type=float, metavar="S", help="flow: above 1 spends more steps on the noise")
    add("--eta", type=fraction, metavar="E", help="ddim: share of fresh noise, 0 to 1")
    add(
        "--cache-interval",
        type=positive_int,
        metavar="N",
        help="compute every N-th evaluation in full, reuse most of it in those between; 1: off",
    )

    group = parser.add_argument_group("guidance")
    add = group.add_argument
    add("--guidance", type=guidance_scale, metavar="S", help="scale; 1 switches it off")
    add("--negative-prompt", metavar="TEXT", help="what to move away from")
    add("--guidance-method", metavar="NAME", help="cfg, apg, or under flow cfg_zero")
    add("--guidance-low", type=fraction, metavar="T", help="guide from here (0: the image) ...")
    add("--guidance-high", type=fraction, metavar="T", help="... to here (1: pure noise)")
    add("--guidance-rescale", type=fraction, metavar="R", help="keep the contrast: 0 to 1")
    add("--zero-steps", type=int, metavar="N", help="cfg_zero: first steps without motion")
    add("--apg-parallel", type=fraction, metavar="P", help="apg: share of the parallel change")
    add("--apg-norm", type=float, metavar="R", help="apg: largest change; 0 for no limit")
    add("--apg-momentum", type=float, metavar="B", help="apg: momentum, usually negative")
    add("--weaker-checkpoint", metavar="PATH", help="autoguidance: move away from this model")

    group = parser.add_argument_group("several devices (left out: the first one does it all)")
    add = group.add_argument
    add("--tensor", type=positive_int, metavar="N", help="split heads and FFNs over N of them")
    add("--fsdp", type=positive_int, metavar="N", help="split the weights' width over N of them")

    group = parser.add_argument_group("other jobs")
    add = group.add_argument
    add("--variation", type=fraction, metavar="V", help="turn the noise by V, 0 to 1")
    add("--variation-seed", type=natural, metavar="K", help="towards this seed's")
    add("--blend-with", metavar="TEXT", help="a second prompt")
    add(
        "--blend",
        type=fraction,
        metavar="W",
        help="its weight; left out: 0 to 1 over --count images",
    )
    add("--image", type=Path, metavar="FILE", help="begin from this picture")
    add("--strength", type=fraction, metavar="S", help="how much of it to redraw (default: 0.6)")
    add("--mask", type=Path, metavar="FILE", help="paint anew only where this picture is white")


def run(options: argparse.Namespace) -> int:
    """Checks inputs and output path, then samples and writes."""
    given = [name for name in _RECORDED if getattr(options, name) is not None]
    vars(options).update({k: v for k, v in _DEFAULTS.items() if k not in given})
    record = _read_record(options, given)
    prompts = [record.request["prompt"]] if record else read_prompts(options)
    prompts = [prompt for prompt in prompts for _ in range(options.count)]
    files = output_files(options.out, len(prompts), options.grid)
    if not options.checkpoint:
        raise LiditError("--checkpoint is missing: name a workdir, an exported folder, or 'demo'")
    with writable_folder(files[0].parent, "--out"):
        from lidit_jax.sampling.pipeline import Pipeline

        load = functools.partial(
            Pipeline.from_checkpoint,
            raw=options.raw,
            mesh=_mesh(options),
            encoders=dict(options.encoders),
        )
        pipeline = load(options.checkpoint)
        weaker = load(options.weaker_checkpoint) if options.weaker_checkpoint else None
        if record:
            _check_same(options.again, options.checkpoint, pipeline, record.fingerprint)
            if weaker is not None and record.weaker_fingerprint:
                _check_same(
                    options.again, options.weaker_checkpoint, weaker, record.weaker_fingerprint
                )
        fields = record.request if record else _fields(options, len(prompts))
        settings = record.settings if record else {n: getattr(options, n) for n in _SETTINGS}
        settings.pop("guidance", None)
        start = _start(options, pipeline, record)
        images = pipeline(
            prompts,
            **{name: value for name, value in fields.items() if name != "prompt"},
            **start,
            weaker=weaker,
            **settings,
        )
        _write(options, pipeline, weaker, prompts, fields, settings, start, images, files)
    print(files[0] if len(files) == 1 else f"{len(files)} images in {files[0].parent}")
    return 0


def _mesh(options: argparse.Namespace) -> MeshConfig | None:
    """All devices, if the options split the model; else the first device alone."""
    sizes = {name: getattr(options, name) for name in ("tensor", "fsdp") if getattr(options, name)}
    if not sizes:
        return None
    import jax

    from lidit_jax.config.schema import MeshConfig

    if jax.device_count() % math.prod(sizes.values()):
        given = " ".join(f"--{name}={size}" for name, size in sizes.items())
        raise LiditError(
            f"{given}: the product must divide the {jax.device_count()} devices of this machine"
        )
    return MeshConfig(**sizes)


def _read_record(options: argparse.Namespace, given: list[str]) -> ImageRecord | None:
    """The record of --again, whose checkpoint the options may name anew; `given` must be empty."""
    if options.again is None:
        return None
    from lidit_jax.sampling import png_metadata

    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise LiditError(f"--again repeats one image: leave out {names}")
    record = png_metadata.read(options.again)
    options.checkpoint = options.checkpoint or record.checkpoint
    options.raw = record.raw
    options.weaker_checkpoint = options.weaker_checkpoint or record.weaker
    options.strength = record.strength
    if record.source and not options.image:
        raise LiditError(f"{options.again} began from a picture: give it again, as --image=FILE")
    return record


def _check_same(image: Path, checkpoint: str, pipeline: Pipeline, fingerprint: str) -> None:
    if pipeline.fingerprint != fingerprint:
        raise LiditError(
            f"{checkpoint} is not the model that drew {image}: its sha256 is "
            f"{pipeline.fingerprint[:12]}..., was {fingerprint[:12]}..."
        )


def _fields(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """What differs from image to image, as `Pipeline.__call__` takes it."""
    fields = {
        "seed": options.seed,
        "guidance": options.guidance,
        "negative_prompt": options.negative_prompt,
        "blend_with": options.blend_with,
        "blend": options.blend or 0.0,
        "variation": options.variation,
        "variation_seed": options.variation_seed,
    }
    turns = [i % options.count for i in range(count)]
    if options.variation:
        fields["seed"] = [options.seed] * count
        fields["variation_seed"] = [(options.variation_seed + turn) % 2**32 for turn in turns]
    if options.blend_with and options.blend is None:
        last = options.count - 1
        fields["seed"] = [options.seed] * count
        fields["blend"] = [turn / last if last else 0.5 for turn in turns]
    return fields


def _start(
    options: argparse.Namespace, pipeline: Pipeline, record: ImageRecord | None
) -> dict[str, Any]:
    """Size, and the picture to begin from, as `Pipeline.__call__` takes them."""
    size = record.size if record else options.size
    if options.aspect:
        if options.size:
            raise LiditError("--size and --aspect both give the shape: leave one out")
        side = pipeline.config.data.image_size
        size = size_of_aspect(options.aspect, side * side, pipeline.size_step)
    if options.image is None:
        if options.mask or (options.strength is not None and not record):
            raise LiditError("--mask and --strength are for a picture: give --image=FILE")
        return {"size": size}
    image = read_picture(options.image, "--image", size, pipeline.size_step)
    mask = None if options.mask is None else read_mask(options.mask, image.shape[:2])
    if record:
        from lidit_jax.sampling.png_metadata import pixels_sha256

        if pixels_sha256(image, mask) != record.source:
            raise LiditError(f"--image and --mask are not those that {options.again} began from")
    return {"size": image.shape[:2], "image": image, "mask": mask, "strength": options.strength}


def _write(
    options: argparse.Namespace,
    pipeline: Pipeline,
    weaker: Pipeline | None,
    prompts: list[str],
    fields: dict[str, Any],
    settings: dict[str, Any],
    start: dict[str, Any],
    images: Any,
    files: list[Path],
) -> None:
    from PIL import Image

    from lidit_jax.evaluation.images import captioned_grid
    from lidit_jax.sampling import png_metadata
    from lidit_jax.sampling.request import image_requests

    checked = pipeline.settings(**settings)
    guidance = checked.guidance if fields["guidance"] is None else fields["guidance"]
    per_image = {k: v for k, v in fields.items() if k != "prompt"} | {"guidance": guidance}
    requests = image_requests(prompts, **per_image)
    extra = {}
    if weaker is not None:
        extra = {
            "weaker_checkpoint": options.weaker_checkpoint,
            "weaker_sha256": weaker.fingerprint,
        }
    if "image" in start:
        strength = start["strength"] or (0.6 if start["mask"] is None else 1.0)
        sha256 = png_metadata.pixels_sha256(start["image"], start["mask"])
        extra |= {"image": options.image, "image_sha256": sha256, "strength": strength}
    common = {
        "checkpoint": options.checkpoint,
        "fingerprint": pipeline.fingerprint,
        "config": pipeline.config,
        "raw": options.raw,
    }
    if options.grid:
        extra |= {"images": len(prompts), "prompt": "\n".join(prompts)}
        text = png_metadata.chunks(requests[0], checked, **common, extra=extra)
        png_metadata.save(captioned_grid(images, prompts), files[0], text)
        return
    for file, image, request in zip(files, images, requests, strict=True):
        text = png_metadata.chunks(request, checked, **common, extra=extra)
        png_metadata.save(Image.fromarray(image), file, text)
