"""LI-DiT text-to-image generation in PyTorch: encoders, sampler, autoencoder, command line.

Needs torch, transformers, safetensors and Pillow; diffusers only for an autoencoder of its own.

    from lidit_torch import LIDiT
    model = LIDiT.from_pretrained("this-folder")
    images = model(["a red circle"], seed=0)        # uint8 [B, H, W, 3]

    python lidit_torch.py --prompt "a red circle" --seed 0 --out circle.png
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lidit_jax.config.text import broken_characters, clean_text
from lidit_jax.pytorch.layers import EPSILON
from lidit_jax.pytorch.model import LIDiTTransformer


class TextEncoder(nn.Module):
    """Frozen LLM of transformers with the instruction and end tokens of the prompt format."""

    def __init__(self, folder: Path, stream: SimpleNamespace, dtype: torch.dtype):
        super().__init__()
        import tokenizers
        import transformers

        source = _encoder_folder(folder, stream.source)
        own = getattr(stream, "tokenizer", None)
        file = folder / own if own else source / "tokenizer.json"
        self.tokenizer = tokenizers.Tokenizer.from_file(str(file))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        kind = transformers.AutoModel
        if transformers.AutoConfig.from_pretrained(source).model_type in ("t5", "mt5", "umt5"):
            kind = transformers.AutoModelForTextEncoding  # without the decoder, as large again
        model = kind.from_pretrained(source, dtype=dtype, use_safetensors=True)
        self.model = getattr(model, "language_model", model)
        self.stream = stream

    def forward(self, prompts: Sequence[str], limit: int) -> tuple[Tensor, Tensor]:
        """Return features [B, S, D], or [B, S, n, D] of n layers, and mask [B, S]: instruction,
        prompt, end token, padding."""
        rows, lowercase = [], getattr(self.stream, "lowercase", False)
        texts = [prompt.lower() if lowercase else prompt for prompt in prompts]
        for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False):
            if len(encoding.ids) > limit:
                raise ValueError(f"a prompt has {len(encoding.ids)} tokens, the limit is {limit}")
            rows.append([*self.stream.prefix, *encoding.ids, self.stream.end])
        length = max(map(len, rows))
        ids = torch.tensor([row + [self.stream.pad] * (length - len(row)) for row in rows])
        mask = torch.tensor([[i < len(row) for i in range(length)] for row in rows])
        device = self.model.device
        ids, mask = ids.to(device), mask.to(device)
        states = self.model(ids, attention_mask=mask.long(), output_hidden_states=True)
        layer = self.stream.layer
        if isinstance(layer, int):
            return states.hidden_states[layer], mask
        return torch.stack([states.hidden_states[i] for i in layer], dim=2), mask


def _encoder_folder(folder: Path, source: str) -> Path:
    """Return an encoder's folder: in the model's folder, elsewhere on this machine, or the hub."""
    for place in (folder / source, Path(source).expanduser()):
        if place.is_dir():
            return place
    from huggingface_hub import snapshot_download

    owner, name, *inside = source.split("/")
    files = ["*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*"]
    files = ["/".join([*inside, file]) for file in files]
    return Path(snapshot_download(f"{owner}/{name}", allow_patterns=files), *inside)


class PatchDecoder(nn.Module):
    """Decoder of lidit-jax's own small autoencoder, with weights in JAX's layout."""

    def __init__(self, folder: Path):
        super().__init__()
        from safetensors.torch import load_file

        self.config = _attributes(folder / "config.json").config.vae
        weights = load_file(folder / "model.safetensors")
        self.weights = nn.ParameterDict(
            {
                name.removeprefix("decoder/"): nn.Parameter(value.float(), requires_grad=False)
                for name, value in weights.items()
                if name.startswith("decoder/")
            }
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Decode latents [B, h, w, C] to images [B, H, W, 3] in [-1, 1]."""
        config, stages = self.config, 0
        while config.patch << stages < config.downsample:
            stages += 1
        x = self._convolve("conv_in", latent.movedim(-1, 1))
        for stage in reversed(range(stages + 1)):
            for i in range(config.blocks):
                h, block = x, f"stage_{stage}_block_{i}"
                for j in range(2):
                    h = self._convolve(f"{block}/conv_{j}", self._activate(f"{block}/norm_{j}", h))
                x = x + h
            if stage:
                x = _depth_to_space(self._convolve(f"up_{stage}", x), 2)
        x = self._convolve("conv_out", self._activate("norm_out", x))
        return _depth_to_space(x, config.patch).movedim(1, -1)

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.weights[f"{name}/bias"], padding="same")

    def _activate(self, name: str, x: Tensor) -> Tensor:
        scale = self.weights[f"{name}/scale"]
        return F.silu(F.rms_norm(x.movedim(1, -1), scale.shape, scale, EPSILON)).movedim(-1, 1)


def _depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Move channels [B, factor * factor * C, h, w] to pixels [B, C, factor * h, factor * w]."""
    return F.pixel_shuffle(x.unflatten(1, (factor**2, -1)).transpose(1, 2).flatten(1, 2), factor)


class DiffusersDecoder(nn.Module):
    """Decoder of a diffusers autoencoder, for shifted and scaled latents."""

    def __init__(self, folder: Path, settings: SimpleNamespace):
        super().__init__()
        import diffusers

        self.model = getattr(diffusers, settings.kind).from_pretrained(folder, use_safetensors=True)
        self.settings = settings

    def forward(self, latent: Tensor) -> Tensor:
        """Decode latents [B, h, w, C] to images [B, H, W, 3] in [-1, 1]."""
        shift, scale = (latent.new_tensor(v) for v in (self.settings.shift, self.settings.scale))
        latent = (latent / scale + shift).movedim(-1, 1).to(self.model.dtype)
        return self.model.decode(latent).sample.movedim(1, -1).float()


def noise_of_seed(seed: int, shape: Sequence[int], step: int | None = None) -> Tensor:
    """Return standard normal noise, float32, equal to JAX's for `jax.random.key(seed)`.

    It is Threefry-2x32 (Salmon et al. 2011) of the positions, then the inverse error function, so
    that the same seed gives the same image in JAX and here.

    Args:
      seed: from 0 to 2**32 - 1.
      shape: of the noise.
      step: the fresh noise after this step, counted from 0; None for the noise to start from.
    """
    key = (0, seed & _WORD)
    if step is not None:
        high, low = _threefry(key, torch.tensor([step + 1]))
        key = (int(high), int(low))
    high, low = _threefry(key, torch.arange(int(np.prod(shape))))
    mantissa = ((high ^ low) >> 9 | 0x3F800000).to(torch.int32).view(torch.float32) - 1
    least = torch.nextafter(torch.tensor(-1.0), torch.tensor(0.0))
    uniform = torch.maximum(mantissa * 2 + least, least).double()
    return (2**0.5 * torch.erfinv(uniform)).float().reshape(*shape)


_WORD = 0xFFFFFFFF


def _threefry(key: tuple[int, int], low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low half of the hash of the counters (0, low) [n] under a key."""
    keys = (*key, 0x1BD11BDA ^ key[0] ^ key[1])
    high, low = torch.full_like(low, keys[0]), (low + keys[1]) & _WORD
    for i in range(5):
        for turn_by in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            high = (high + low) & _WORD
            low = ((low << turn_by | low >> (32 - turn_by)) & _WORD) ^ high
        high = (high + keys[(i + 1) % 3]) & _WORD
        low = (low + keys[(i + 2) % 3] + i + 1) & _WORD
    return high, low


def schedule(settings: SimpleNamespace, steps: int) -> Iterator[tuple[float, ...]]:
    """Yield (signal, sigma, next signal, next sigma, network's time) per step, noisiest first."""
    if not 0 < steps <= getattr(settings, "timesteps", steps):
        raise ValueError(f"{steps} sampling steps: choose 1 to {settings.timesteps}")
    if settings.process == "flow":
        t = np.linspace(1, 0, steps + 1)
        t = (settings.shift * t / (1 + (settings.shift - 1) * t)).astype(np.float32)
        signal, sigma, times = 1 - t, t, 1000 * t
    else:
        times = np.round(np.arange(steps, -1, -1) * settings.timesteps / steps).astype(int) - 1
        # The last entry, for the time -1, is clean data.
        signal = np.append(np.array(settings.signal), 1.0)[times]
        sigma = np.append(np.array(settings.sigma), 0.0)[times]
    for i in range(steps):
        levels = (signal[i], sigma[i], signal[i + 1], sigma[i + 1], times[i])
        yield tuple(float(value) for value in levels)


def predicted_image(space: str, prediction: Tensor, x_t: Tensor, signal: float, sigma: float):
    """Return x0 from a prediction of "epsilon", "v", "velocity" or "x0"."""
    if space == "epsilon":
        return (x_t - sigma * prediction) / signal
    if space == "v":
        return signal * x_t - sigma * prediction
    return x_t - sigma * prediction if space == "velocity" else prediction


class LIDiT(nn.Module):
    """Text-to-image model: network, text encoders, sampler and autoencoder."""

    def __init__(
        self,
        config: SimpleNamespace,
        network: LIDiTTransformer,
        encoders: Sequence[TextEncoder],
        decoder: nn.Module,
    ):
        super().__init__()
        self.config, self.network, self.decoder = config, network, decoder
        self.encoders = nn.ModuleList(encoders)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "LIDiT":
        """Load an exported folder.

        Args:
          folder: its path, or the id of a copy on the Hugging Face hub.
          dtype: of the network and the encoders.
        """
        if not Path(folder).is_dir():
            from huggingface_hub import snapshot_download

            folder = snapshot_download(str(folder))
        folder = Path(folder)
        config = _attributes(folder / "config.json")
        widths = [stream.width for stream in config.streams]
        layers = [1 if isinstance(s.layer, int) else len(s.layer) for s in config.streams]
        with torch.device("meta"):
            network = LIDiTTransformer(config.lidit.config.model, widths, config.channels, layers)
        network.load_state_dict(_load_weights(folder, dtype), assign=True)
        kind = config.autoencoder.kind
        if kind == "pixels":
            decoder = nn.Identity()
        elif kind == "patch":
            decoder = PatchDecoder(folder / "vae")
        else:
            decoder = DiffusersDecoder(folder / "vae", config.autoencoder)
        encoders = [TextEncoder(folder, stream, dtype) for stream in config.streams]
        return cls(config, network, encoders, decoder).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(
        self,
        prompts: Sequence[str],
        size: int | tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Generate one image per prompt, uint8 [B, H, W, 3].

        Args:
          prompts: texts of the images; they are cleaned as in lidit-jax (`clean_text`).
          size: side, or (height, width), in pixels; None, here and below, for the default.
          steps: denoising steps of DDIM, which is Euler's method for flow, with the share of fresh
            noise that the model was exported with.
          guidance: classifier-free guidance scale; 1 switches it off.
          seed: image i is drawn from seed + i, as in lidit-jax.
          noise: initial noise [B, h, w, C], instead of the seed's.
        """
        config, count = self.config, len(prompts)
        total: int = config.sampling.steps if steps is None else steps
        scale: float = config.sampling.guidance if guidance is None else guidance
        area: int | tuple[int, int] = config.sampling.size if size is None else size
        sides = (area, area) if isinstance(area, int) else tuple(area)
        unit = config.downsample * config.lidit.config.model.patch
        if any(side <= 0 or side % unit for side in sides):
            raise ValueError(f"size {area}: each side must be a multiple of {unit}")
        shape = (*(side // config.downsample for side in sides), config.channels)
        seeds = [(seed + i) % 2**32 for i in range(count)]
        if noise is None:
            noise = torch.stack([noise_of_seed(s, shape) for s in seeds])
        if noise.shape != (count, *shape):
            raise ValueError(f"noise is {list(noise.shape)}, not {[count, *shape]}")

        if damaged := [prompt for prompt in prompts if broken_characters(prompt)]:
            raise ValueError(
                f"the prompt {damaged[0]!r} contains half of a character: write it again"
            )
        texts = [*map(clean_text, prompts), *[""] * count]
        limit = config.lidit.config.encoders.max_prompt_tokens
        features, masks = zip(*(encoder(texts, limit) for encoder in self.encoders), strict=True)
        prefix_lengths = [len(stream.prefix) for stream in config.streams]
        x = noise.to(features[0].device)
        share = config.sampling.fresh_noise
        levels = schedule(config.schedule, total)
        for step, (signal, sigma, next_signal, next_sigma, time) in enumerate(levels):
            t = torch.full((2 * count,), time, device=x.device)
            both = self.network(torch.cat([x, x]), t, features, masks, prefix_lengths)
            with_prompt, without = both.chunk(2)
            prediction = with_prompt + (scale - 1) * (with_prompt - without)
            x0 = predicted_image(config.schedule.prediction, prediction, x, signal, sigma)
            # DDIM (https://arxiv.org/abs/2010.02502, eq. 12 and 16); a share of 1 is ancestral.
            fresh = (
                next_sigma * share * (1 - (next_sigma * signal / next_signal / sigma) ** 2) ** 0.5
            )
            kept = (next_sigma**2 - fresh**2) ** 0.5
            x = next_signal * x0 + kept / sigma * (x - signal * x0)
            if fresh:
                drawn = [noise_of_seed(s, shape, step) for s in seeds]
                x = x + fresh * torch.stack(drawn).to(x)
        mean, std = (x.new_tensor(v) for v in (config.latents.mean, config.latents.std))
        image = self.decoder(x * std + mean).clamp(-1, 1)
        return ((image + 1) * 127.5).round().to(torch.uint8)


def _load_weights(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    index, files = folder / "model.safetensors.index.json", ["model.safetensors"]
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if unsafe := [name for name in files if Path(name).name != name or "\\" in name]:
        raise ValueError(f"{index} names a file outside of its folder: {unsafe[0]!r}")
    return {
        name: tensor.to(dtype)
        for file in files
        for name, tensor in load_file(folder / file).items()
    }


def _attributes(file: Path) -> SimpleNamespace:
    return json.loads(file.read_text(), object_hook=lambda entries: SimpleNamespace(**entries))


def main() -> None:
    """Generate the image of one prompt as a PNG file."""
    parser = argparse.ArgumentParser(description="Draw an image with the model in this folder.")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--out", required=True, help="a .png file")
    parser.add_argument("--seed", type=int, default=0, help="as in lidit-jax")
    parser.add_argument("--noise", help="a .npy file [h, w, C] instead of a seed's noise")
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    try:
        noise = None
        if options.noise:
            noise = torch.from_numpy(np.load(options.noise, allow_pickle=False)).float()[None]
        model = LIDiT.from_pretrained(Path(__file__).parent).to(options.device)
        settings = {name: getattr(options, name) for name in ("size", "steps", "guidance", "seed")}
        image = model([options.prompt], noise=noise, **settings)[0]
        from PIL import Image

        Image.fromarray(image.cpu().numpy()).save(options.out)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
