"""`lidit convert`: conversion of weights to and from PyTorch and the layouts of Hugging Face."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lidit_jax.commands.arguments import CHECKPOINT_HELP, add_command, add_encoder_option
from lidit_jax.config.values import ComputeType, StorageType, literal_values
from lidit_jax.errors import LiditError
from lidit_jax.io.output import refuse_source, writable_folder
from lidit_jax.io.paths import local_path

_EXAMPLES = """\
  lidit convert to-torch demo torch-demo                then, without JAX:
  python torch-demo/lidit_torch.py --prompt "a red circle" --out circle.png
  lidit convert from-torch torch-demo my-model          and back, bit for bit
  lidit convert from-hf hunyuan-refiner HunyuanVideo/transformer refiner
                                                        then start a run from it:
  lidit train --config=mine.py --workdir=run --config.training.init_from=refiner
  lidit convert from-hf pixart PixArt-alpha/PixArt-Sigma-XL-2-1024-MS pixart
  lidit sample --checkpoint=pixart --prompt "a small cactus in the desert" --out=cactus.png
  lidit convert to-hf pixart pixart transformer         and back, for diffusers' pipelines
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit convert` and its subcommands."""
    parser = add_command(
        subparsers,
        "convert",
        "convert weights to PyTorch and back, or import them from Hugging Face",
        _EXAMPLES,
        None,
    )
    directions = parser.add_subparsers(
        dest="direction", metavar="DIRECTION", title="directions", required=True
    )
    to_torch = add_command(
        directions,
        "to-torch",
        "write a folder that needs only PyTorch, and compare it with the original",
        _EXAMPLES,
        _to_torch,
    )
    _add_weights_to_write(to_torch)
    to_torch.add_argument(
        "--with-encoders",
        action="store_true",
        help="copy all text encoders; default: those with a hub id or a folder are only referenced",
    )
    add_encoder_option(to_torch)
    to_torch.add_argument(
        "--no-parity",
        action="store_true",
        help="skip the comparison, which needs memory for both models",
    )
    from_torch = add_command(
        directions,
        "from-torch",
        "convert such a folder back, bit for bit",
        _EXAMPLES,
        _back,
    )
    from_torch.add_argument("folder", type=local_path, metavar="OUT", help="written by to-torch")
    from_torch.add_argument("bundle", type=local_path, metavar="BUNDLE", help="the new folder")
    from_hf = add_command(
        directions,
        "from-hf",
        "import a trained model, or a part of one, from Hugging Face's layout",
        _EXAMPLES,
        None,
    )
    parts = from_hf.add_subparsers(dest="part", metavar="PART", title="parts", required=True)
    refiner = add_command(
        parts,
        "hunyuan-refiner",
        "import the token refiner of a HunyuanVideo transformer",
        _EXAMPLES,
        _refiner,
    )
    refiner.add_argument("path", type=local_path, metavar="PATH", help="the transformer's folder")
    refiner.add_argument("out", type=local_path, metavar="OUT", help="the new folder")
    pixart = add_command(
        parts,
        "pixart",
        "import a PixArt-alpha or PixArt-Sigma pipeline as a model that lidit sample draws with",
        _EXAMPLES,
        _pixart,
    )
    pixart.add_argument(
        "source", metavar="SOURCE", help="folder or hub id of the pipeline, or of its transformer"
    )
    pixart.add_argument("out", type=local_path, metavar="OUT", help="the new folder")
    pixart.add_argument(
        "--pipeline",
        default="",
        metavar="SOURCE",
        help="folder or hub id with text encoder, VAE and scheduler, if the first has none",
    )
    pixart.add_argument(
        "--encoder",
        default="",
        metavar="SOURCE",
        help="folder or hub id of the same T5 as safetensors, if the pipeline's is pickled",
    )
    pixart.add_argument(
        "--dtype",
        choices=literal_values(ComputeType),
        default="bfloat16",
        help="compute type of the network (default: %(default)s)",
    )
    pixart.add_argument(
        "--encoder-dtype",
        choices=literal_values(StorageType),
        default="bfloat16",
        help="storage type of the text encoder (default: %(default)s)",
    )
    _add_to_hf(directions)


def _add_to_hf(directions: Any) -> None:
    to_hf = add_command(
        directions,
        "to-hf",
        "write a model in the layout of another project on Hugging Face",
        _EXAMPLES,
        None,
    )
    parts = to_hf.add_subparsers(dest="part", metavar="PART", title="parts", required=True)
    pixart = add_command(
        parts,
        "pixart",
        "write the transformer of an imported PixArt for diffusers' PixArt pipelines",
        _EXAMPLES,
        _to_pixart,
    )
    _add_weights_to_write(pixart)


def _add_weights_to_write(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint, the new folder, and which weights it gets, in which type."""
    parser.add_argument("checkpoint", metavar="CKPT", help=CHECKPOINT_HELP)
    parser.add_argument("out", type=local_path, metavar="OUT", help="the new folder")
    parser.add_argument(
        "--raw", action="store_true", help="the raw weights instead of their moving average"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="type of the tensors (default: %(default)s)",
    )


def _to_torch(options: argparse.Namespace) -> int:
    from lidit_jax.checkpoints.model_card import KEPT
    from lidit_jax.checkpoints.opener import open_model
    from lidit_jax.pytorch import parity
    from lidit_jax.pytorch.export import MODULE, export_torch

    model = open_model(options.checkpoint, raw=options.raw)
    refuse_source(options.out, model.folder)
    with writable_folder(options.out, "OUT"):
        card_is_new = export_torch(
            model,
            options.out,
            raw=options.raw,
            dtype=options.dtype,
            with_encoders=options.with_encoders,
            encoders=dict(options.encoders),
        )
        if not card_is_new:
            print(KEPT)
        size = sum(file.stat().st_size for file in options.out.glob("model*.safetensors"))
        print(f"{options.out}: {size / 1e6:.1f} MB of weights, {options.dtype}")
        if options.no_parity:
            return 0
        if not parity.torch_is_installed():
            print("not compared with the original: pip install torch (or add --no-parity)")
            return 0
        report = parity.compare(
            options.checkpoint,
            options.out,
            raw=options.raw,
            dtype=options.dtype,
            encoders=dict(options.encoders),
        )
        report.save(options.out / "parity.json")
    print(report.table())
    if not report.passed:
        raise LiditError(
            f"{options.out / MODULE} gives other images than the original: do not use it, and "
            "report it with parity.json"
        )
    return 0


def _back(options: argparse.Namespace) -> int:
    from lidit_jax.pytorch.import_weights import import_torch

    if not options.folder.is_dir():
        raise LiditError(f"{options.folder} is not a folder: name one written by to-torch")
    refuse_source(options.bundle, options.folder)
    with writable_folder(options.bundle, "BUNDLE"):
        import_torch(options.folder, options.bundle)
    print(f"{options.bundle}: all tensors are equal to those exported")
    return 0


def _refiner(options: argparse.Namespace) -> int:
    from lidit_jax.pytorch.hunyuan_refiner import load_hunyuan_refiner, save_refiner

    refuse_source(options.out, options.path)
    refiner = load_hunyuan_refiner(options.path)
    with writable_folder(options.out, "OUT"):
        save_refiner(refiner, options.out)
    settings = {"training.init_from": options.out} | refiner.settings
    print(
        f"{options.out}: {refiner.config.blocks} blocks, width {refiner.width}, for features of "
        f"width {refiner.feature_width}; train from it with\n  "
        + " ".join(f"--config.{name}={value}" for name, value in settings.items())
    )
    return 0


def _pixart(options: argparse.Namespace) -> int:
    from lidit_jax.pytorch.pixart import PixArtSource, import_pixart

    for folder in (options.source, options.pipeline, options.encoder):
        if folder and Path(folder).is_dir():
            refuse_source(options.out, Path(folder))
    source = PixArtSource(options.source, options.pipeline, options.encoder)
    with writable_folder(options.out, "OUT"):
        config = import_pixart(
            source, options.out, dtype=options.dtype, encoder_dtype=options.encoder_dtype
        )
    model, size = config.model, config.data.image_size
    print(
        f"{options.out}: {model.depth} blocks, width {model.width}, for images of {size}x{size} px "
        f"from {config.encoders.sources[0]}; draw with\n"
        f'  lidit sample --checkpoint={options.out} --prompt "a small cactus" --out=cactus.png'
    )
    return 0


def _to_pixart(options: argparse.Namespace) -> int:
    from lidit_jax.checkpoints.opener import open_model
    from lidit_jax.pytorch.pixart_export import WEIGHTS, export_pixart

    model = open_model(options.checkpoint, raw=options.raw)
    refuse_source(options.out, model.folder)
    with writable_folder(options.out, "OUT"):
        export_pixart(model, options.out, options.dtype)
    size = (options.out / WEIGHTS).stat().st_size
    print(
        f"{options.out}: {size / 1e6:.1f} MB of weights, {options.dtype}, without a learned "
        "variance; load it with\n"
        f"  diffusers.PixArtTransformer2DModel.from_pretrained({str(options.out)!r})"
    )
    return 0
