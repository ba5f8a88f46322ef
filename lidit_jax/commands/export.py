"""`lidit export`: export of a workdir's newest checkpoint to a small folder for sampling."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import add_command, file_size
from lidit_jax.errors import LiditError
from lidit_jax.io.bucket_sync import local_staging
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import to_path

if TYPE_CHECKING:
    from lidit_jax.checkpoints.opener import SavedModel

_FILES = ("README.md", "config.json", "*.safetensors", "*.safetensors.index.json")
_PICTURES = ("images/samples.png", "images/scenes.png")
_FILES += ("vae/*", *_PICTURES)
"""What an exported folder consists of; nothing else of it is uploaded."""
_EXAMPLES = """\
  lidit export --checkpoint=runs/demo --out=my-model
  lidit sample --checkpoint=my-model --prompt="a red circle" --out=circle.png
  lidit export --checkpoint=runs/demo --out=my-model --push-to-hub=ORG/my-model --private

The folder holds config.json and model.safetensors (the averaged weights in half precision), or
several weight files and their index with --max-file-size. A text-to-image model has its autoencoder
in vae/; its text encoders are referenced, not copied. README.md is a model card to complete, with
the run's images and its scores of "lidit eval scenes"; an existing one is kept. A KL autoencoder
(Stable Diffusion's architecture) is written in diffusers' layout, which diffusers opens too.
--push-to-hub uploads these files with the token of "hf auth login" or of HF_TOKEN; in the uploaded
config.json, only the last component of this machine's absolute paths remains.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit export`."""
    parser = add_command(
        subparsers, "export", "write the weights of a run as a folder to share", _EXAMPLES, run
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=to_path,
        metavar="DIR",
        help='a workdir of "lidit train"',
    )
    parser.add_argument("--out", required=True, type=to_path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--max-file-size",
        type=file_size,
        default=0,
        metavar="SIZE",
        help="split the weights into files of at most this size, such as 15MiB",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the raw weights instead of their moving average"
    )
    parser.add_argument(
        "--push-to-hub",
        type=hub_id,
        metavar="ORG/NAME",
        help="also upload the folder to this model repository on huggingface.co, made if needed",
    )
    parser.add_argument(
        "--private", action="store_true", help="make a new repository private (--push-to-hub)"
    )


def hub_id(text: str) -> str:
    """Parse the name of a repository on huggingface.co."""
    from lidit_jax.weights.hub import is_hub_id

    if not is_hub_id(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no repository: write ORG/NAME")
    return text


def run(options: argparse.Namespace) -> int:
    """Load the newest checkpoint, write the folder, and upload it if asked to."""
    from lidit_jax.weights.hub import check_token

    if options.push_to_hub:
        check_token()
    elif options.private:
        raise LiditError("--private is for --push-to-hub=ORG/NAME: add it, or leave --private out")
    failure = None
    with writable_folder(options.out, "--out"), local_staging(options.out) as out:
        import jax

        from lidit_jax.checkpoints.bundle import is_bundle
        from lidit_jax.checkpoints.model_card import KEPT, model_card, write_model_card
        from lidit_jax.checkpoints.opener import open_model

        model = open_model(options.checkpoint, raw=options.raw)
        if is_bundle(model.folder):
            raise LiditError(f"{model.folder} is an exported folder already: copy it")
        if options.push_to_hub:
            _check_card(options.out / "README.md", model.step)
        params = model.load()
        _write_model(out, model, params, options.max_file_size)
        results = _results(out, model, params, raw=options.raw)
        for name in _PICTURES:
            if name not in results["pictures"]:  # left from an export of other weights
                (options.out / name).unlink(missing_ok=True)
        card = model_card(
            options.out.name or out.resolve().name,
            model.config,
            model.provenance,
            sum(leaf.size for leaf in jax.tree.leaves(params)),
            raw=options.raw,
            hub_id=options.push_to_hub or "",
            **results,
        )
        if not write_model_card(out, card, options.out):
            print(KEPT)
        files = sorted({file for pattern in _FILES for file in out.glob(pattern) if file.is_file()})
        size = sum(file.stat().st_size for file in files)
        print(f"{options.out}: {size / 1e6:.1f} MB, step {model.step}")
        if options.push_to_hub:
            try:
                _push(out, files, options.push_to_hub, private=options.private)
            except LiditError as error:  # raised below: a bucket gets its files first
                failure = error
    if failure is not None:
        raise failure
    return 0


def _check_card(file: Path, step: int | None) -> None:
    """Raise `LiditError` if a card that is kept does not name the step to upload."""
    from lidit_jax.checkpoints.model_card import names_step

    if step is None or not file.exists():
        return
    if not names_step(file.read_bytes().decode(errors="replace"), step):
        raise LiditError(
            f"{file} does not name step {step:,}, which is to be uploaded with it: delete it and a "
            "new one is written, or edit it"
        )


def _push(out: Path, files: list[Path], hub_id: str, *, private: bool) -> None:
    """Upload files of a folder; their descriptions without the paths of this machine."""
    from lidit_jax.checkpoints.bundle import public_description
    from lidit_jax.weights.hub import upload

    names = [file.relative_to(out).as_posix() for file in files]
    contents = {
        name: public_description(file.read_text(encoding="utf-8")).encode()
        for name, file in zip(names, files, strict=True)
        if file.name == "config.json"
    }
    address = upload(out, names, hub_id, private=private, contents=contents)
    print(f"{address}: {len(files)} files")


def _write_model(out: Path, model: SavedModel, params: Any, largest: int) -> None:
    """Write weights, description and autoencoder."""
    from lidit_jax.autoencoders import diffusers_layout
    from lidit_jax.autoencoders.frozen import (
        autoencoder_files,
        build_autoencoder,
        locate_autoencoder,
    )
    from lidit_jax.autoencoders.kl import AutoencoderKL
    from lidit_jax.checkpoints.bundle import save_bundle

    config = model.config
    if config.training.task == "lidit" and config.vae.source != "pixels":
        source, target = locate_autoencoder(config.vae.source), out / "vae"
        if source.resolve() != target.resolve():
            target.mkdir(parents=True, exist_ok=True)
            for file in autoencoder_files(source):
                shutil.copy2(file, target)
    if config.training.task == "lidit" or config.vae.architecture != "kl":
        save_bundle(out, params, config, model.provenance, largest_file=largest)
        return
    if largest:
        raise LiditError("diffusers' layout has a single weight file: leave out --max-file-size")
    autoencoder = build_autoencoder(config.vae)
    assert isinstance(autoencoder, AutoencoderKL)
    diffusers_layout.save(out, autoencoder, params)


def _results(out: Path, model: SavedModel, params: Any, *, raw: bool) -> dict[str, Any]:
    """Copy the run's newest images and the grid of its scores; return both for the card.

    The run's images were drawn with averaged weights: raw ones have none.
    """
    from lidit_jax.evaluation.saved_scores import find_scores
    from lidit_jax.evaluation.scenes import RESULTS
    from lidit_jax.weights.parameter_paths import fingerprint

    workdir, pictures = model.folder.parent.parent, {}
    images = () if raw else (workdir / "images").glob("step_*.png")
    drawn = {int(m[1]): f for f in images if (m := re.fullmatch(r"step_(\d+)\.png", f.name))}
    steps = [step for step in drawn if step <= (model.step or 0)]
    if steps:
        caption = f"The run's prompts, drawn at step {max(steps):,}"
        pictures |= _copied(drawn[max(steps)], out / "images" / "samples.png", caption)
    if model.config.training.task != "lidit":
        return {"pictures": pictures}
    scores = find_scores([workdir, RESULTS], fingerprint(params))
    if scores and scores.grid.is_file():
        caption = "The scored images: hits in green frames, misses in red ones"
        pictures |= _copied(scores.grid, out / "images" / "scenes.png", caption)
    return {"scores": scores.markdown() if scores else "", "pictures": pictures}


def _copied(source: Path, target: Path, caption: str) -> dict[str, str]:
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(source.read_bytes())
    return {f"{target.parent.name}/{target.name}": caption}
