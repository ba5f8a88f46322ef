"""`lidit sample`: from prompts to PNG files that remember how they were made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import (
    CHECKPOINT_HELP,
    add_command,
    guidance_scale,
    natural,
    positive_int,
)
from lidit_jax.errors import LiditError
from lidit_jax.output import atomic_file, writable_folder

if TYPE_CHECKING:
    from PIL import Image

    from lidit_jax.config import SamplingConfig

_EXAMPLES = """\
  lidit sample --checkpoint=demo --prompt="a red circle" --out=circle.png
  lidit sample --checkpoint=demo --prompt="a red circle" --prompt="two blue stars" --out=images/
  lidit sample --checkpoint=runs/demo --prompts=prompts.txt --grid --out=grid.png
  lidit sample --checkpoint=runs/demo --prompt="a red circle" --steps=20 --guidance=3 --seed=7 \\
      --out=circle.png

One prompt makes one PNG; several make a folder of numbered ones, or with --grid one captioned
picture. Each PNG records prompt, seed and settings in its text chunks.
"""


def add_parser(subparsers: Any) -> None:
    """Adds `lidit sample`."""
    parser = add_command(subparsers, "sample", "make images from prompts", _EXAMPLES, run)
    parser.add_argument("--checkpoint", required=True, metavar="PATH|NAME", help=CHECKPOINT_HELP)
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="what to see; repeatable"
    )
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a text file, one prompt a line"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE|DIR", help="a .png file, or a folder"
    )
    parser.add_argument("--grid", action="store_true", help="one captioned picture of all images")
    parser.add_argument("--size", type=positive_int, metavar="PX", help="side in pixels")
    parser.add_argument("--steps", type=positive_int, metavar="N", help="denoising steps")
    parser.add_argument(
        "--guidance", type=guidance_scale, metavar="S", help="guidance scale; 1 switches it off"
    )
    parser.add_argument("--sampler", metavar="NAME", help="ddim, euler, ...")
    parser.add_argument("--seed", type=natural, default=0, metavar="K", help="noise (default: 0)")
    parser.add_argument(
        "--raw", action="store_true", help="the raw weights instead of their moving average"
    )


def run(options: argparse.Namespace) -> int:
    """Checks prompts and output path, then samples and writes."""
    prompts = _prompts(options)
    files = _output_files(options.out, len(prompts), options.grid)
    with writable_folder(files[0].parent, "--out"):
        from lidit_jax.pipeline import Pipeline

        pipeline = Pipeline.from_checkpoint(options.checkpoint, raw=options.raw)
        images = pipeline(
            prompts,
            size=options.size,
            steps=options.steps,
            guidance=options.guidance,
            seed=options.seed,
            sampler=options.sampler,
        )
        record = _record(options, pipeline.config.sampling)
        if options.grid:
            from lidit_jax.evaluation.images import captioned_grid

            record |= {"prompt": "\n".join(prompts)}
            _save(captioned_grid(images, prompts), files[0], record)
        else:
            from PIL import Image

            for i, (file, image, prompt) in enumerate(zip(files, images, prompts, strict=True)):
                # The seed that draws this image again on its own.
                record |= {"prompt": prompt, "seed": (options.seed + i) % 2**32}
                _save(Image.fromarray(image), file, record)
    print(files[0] if len(files) == 1 else f"{len(files)} images in {files[0].parent}")
    return 0


def _prompts(options: argparse.Namespace) -> list[str]:
    prompts = list(options.prompt)
    if any(not prompt.strip() for prompt in prompts):
        raise LiditError(
            '--prompt is empty: say what you want to see, as in --prompt="a red circle"'
        )
    if options.prompts:
        try:
            lines = options.prompts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise LiditError(
                f"--prompts: cannot read {options.prompts} ({reason}): "
                "name a text file with one prompt a line"
            ) from error
        prompts += [line.strip() for line in lines if line.strip()]
        if not prompts:
            raise LiditError(f"--prompts: {options.prompts} is empty: write one prompt a line")
    if not prompts:
        raise LiditError("nothing to draw: give --prompt=TEXT or --prompts=FILE")
    return prompts


def _output_files(out: Path, count: int, grid: bool) -> list[Path]:
    """The PNG files to write: `out` itself, or numbered ones (`grid.png`) in the folder `out`."""
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise LiditError(f"--out={out} is a folder: name a .png file in it")
        if count > 1 and not grid:
            raise LiditError(
                f"--out={out} is one file for {count} prompts: name a folder, or add --grid"
            )
        return [out]
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"):
        raise LiditError(f"--out={out}: images are written as PNG: end the name in .png")
    return [out / "grid.png"] if grid else [out / f"{i:04d}.png" for i in range(count)]


def _record(options: argparse.Namespace, defaults: SamplingConfig) -> dict[str, Any]:
    """How the images are made: the options, and where they are silent the checkpoint's own."""
    record = {"checkpoint": options.checkpoint, "seed": options.seed}
    for name in ("steps", "guidance", "sampler"):
        value = getattr(options, name)
        record[name] = getattr(defaults, name) if value is None else value
    return record | {"weights": "raw" if options.raw else "averaged"}


def _save(image: Image.Image, path: Path, record: dict[str, Any]) -> None:
    """Writes a PNG with the record in its text chunks."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for name, value in record.items():
        chunks.add_itxt(name, str(value))
    with atomic_file(path) as file:
        image.save(file, format="PNG", pnginfo=chunks)
