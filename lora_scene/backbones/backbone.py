"""What learning and creating need of a base: encode pictures and prompts, predict noise."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_scene.backbones.decoding import wide_enough
from lora_scene.backbones.families import (
    Family,
    check_resolution,
    identify,
    map_level,
    own_side,
    side_multiple,
    vae_factor,
)
from lora_scene.backbones.noise_schedules import check_schedule
from lora_scene.scenes.canvas import Canvas, Shape
from lora_scene.size import Size

SMALL_BASE = 128  # pixels; up to here the usual guidance burns the colours
SMALL_GUIDANCE = 3.5


@dataclass(frozen=True)
class Moments:
    """The VAE's posterior of a picture, scaled: mean and deviation, each (c, h, w)."""

    mean: Tensor
    deviation: Tensor

    def sample(self, eps: Tensor) -> Tensor:
        """Draw a latent (c, h, w) with the standard normal `eps` (c, h, w)."""
        return self.mean + self.deviation * eps

    def on_cpu(self) -> Moments:
        """Return a copy on the CPU."""
        return Moments(self.mean.cpu(), self.deviation.cpu())


@dataclass(frozen=True)
class TextEncoding:
    """Encoded prompts.

    Attributes:
        states: (b, n_tokens, d), what cross-attention reads.
        pooled: (b, p), SDXL's pooled embedding, or None.
    """

    states: Tensor
    pooled: Tensor | None = None

    @staticmethod
    def joined(parts: Sequence[TextEncoding]) -> TextEncoding:
        """Return batches, one after the other."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        states = torch.cat([part.states for part in parts])
        return TextEncoding(states, torch.cat(pooled) if pooled else None)

    def append(self, other: TextEncoding) -> TextEncoding:
        """Return both batches, one after the other."""
        return self.joined([self, other])


def whole_picture(size: Size) -> tuple[int, ...]:
    """Return SDXL's ids of a picture that is no part of a larger one, as stock pipelines do.

    They are the original height and width, the crop's top and left, and the target height and
    width, in pixels (arXiv:2307.01952, section 2.2).
    """
    return (*size.rows_columns, 0, 0, *size.rows_columns)


@functools.lru_cache(maxsize=8)
def _on_device(numbers: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a row (1, n) of numbers, copied to the device once and not at every step."""
    return torch.tensor([numbers], dtype=dtype, device=device)


class Backbone:
    """A base's parts, frozen, behind the few calls that training needs.

    Args:
        pipeline: A stock Stable Diffusion pipeline; its parts are shared, not copied.
        name: What to call the base in metadata.
        resolution: Training size in pixels; 0 takes the model's own.

    Attributes:
        own_resolution: The size that the model was made for, pixels.

    Raises:
        BackboneError: The size does not divide by the latents' factor and the UNet's levels, the
            base's own is not told, or it was trained for another target than noise or velocity.
    """

    def __init__(self, pipeline: Any, *, name: str, resolution: int = 0) -> None:
        from diffusers import DDPMScheduler

        self.name = name
        self.family: Family = identify(pipeline.unet.config)
        self.pipeline = pipeline
        self.unet = pipeline.unet
        self.vae = pipeline.vae
        self.text_encoders = tuple(getattr(pipeline, part) for part in self.family.text_encoders)
        self.tokenizers = tuple(getattr(pipeline, part) for part in self.family.tokenizers)
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            limit = encoder.config.max_position_embeddings  # a tokenizer that says none has 10^30
            tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
        self.dtype: torch.dtype = self.text_encoders[0].dtype
        scheduler = pipeline.scheduler
        check_schedule(type(scheduler).__name__, scheduler.config, where=name)
        self.noise_scheduler = DDPMScheduler.from_config(scheduler.config)
        self.prediction_type: str = self.noise_scheduler.config.prediction_type
        self.vae_factor: int = vae_factor(self.vae.config)
        self.own_resolution: int = own_side(self.unet.config) * self.vae_factor
        self.resolution: int = resolution or self.own_resolution
        check_resolution(self.resolution, self.multiple)
        for part in (self.unet, self.vae, *self.text_encoders):
            part.requires_grad_(False)
            part.eval()

    @property
    def device(self) -> torch.device:
        """Return where the UNet lies; its own property walks through all layers at every call."""
        device: torch.device = next(self.unet.parameters()).device
        return device

    @property
    def multiple(self) -> int:
        """Return what the sides of its pictures are multiples of, pixels."""
        return side_multiple(self.unet.config, self.vae.config)

    def canvas(self, shape: Shape = "square", *, level: int | None = None) -> Canvas:
        """Return what it is shown in training; `level` is that of the maps, see `map_level`."""
        level = map_level(self.unet.config) if level is None else level
        cells = self.vae_factor, self.vae_factor * 2**level
        return Canvas(self.resolution, self.multiple, *cells, shape, self.own_resolution)

    @property
    def latent_channels(self) -> int:
        """Return the latents' channels."""
        return int(self.unet.config.in_channels)

    @property
    def usual_guidance(self) -> float:
        """Return the guidance that suits the base: its pipeline's default, less if it is small."""
        if self.resolution <= SMALL_BASE:
            return SMALL_GUIDANCE
        call = inspect.signature(type(self.pipeline).__call__)
        default: float = call.parameters["guidance_scale"].default
        return default

    @property
    def n_timesteps(self) -> int:
        """Return T, the number of training timesteps."""
        return int(self.noise_scheduler.config.num_train_timesteps)

    def place(self, device: str) -> None:
        """Move UNet and text encoders."""
        for part in (self.unet, *self.text_encoders):
            part.to(device)

    @contextlib.contextmanager
    def in_mode(self, *, is_training: bool) -> Iterator[None]:
        """Switch dropout, which only adapters have, on or off, and back."""
        parts = (self.unet, *self.text_encoders)
        kept = [part.training for part in parts]
        for part in parts:
            part.train(is_training)
        try:
            yield
        finally:
            for part, was_training in zip(parts, kept, strict=True):
                part.train(was_training)

    @torch.no_grad()
    def encode_picture(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Moments:
        """Encode a picture (H, W, 3) uint8, in float32 where the VAE overflows in float16."""
        config = self.vae.config
        picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        with wide_enough(self.vae):
            posterior = self.vae.encode(picture.to(self.vae.device, self.vae.dtype)).latent_dist
        mean = posterior.mean[0].float()
        if config.get("latents_mean") is not None:
            center = torch.tensor(config.latents_mean, device=mean.device).view(-1, 1, 1)
            spread = torch.tensor(config.latents_std, device=mean.device).view(-1, 1, 1)
        else:
            center = torch.tensor(config.get("shift_factor") or 0.0, device=mean.device)
            spread = torch.tensor(1.0, device=mean.device)
        factor = config.scaling_factor / spread
        return Moments((mean - center) * factor, posterior.std[0].float() * factor)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """Return token ids (b, n_tokens), one tensor a tokenizer, padded as pipelines do."""
        return tuple(
            tokenizer(
                prompts,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for tokenizer in self.tokenizers
        )

    def encode_tokens(self, ids: tuple[Tensor, ...]) -> TextEncoding:
        """Encode token ids just as the stock pipelines do, so that training sees their embeddings.

        SD reads the last state, SDXL the last but one of both encoders side by side, and the
        second encoder's pooled projection.
        """
        ids = tuple(each.to(self.device) for each in ids)
        if not self.family.has_pooled_text:
            return TextEncoding(self.text_encoders[0](ids[0])[0])
        outputs = [
            encoder(each, output_hidden_states=True)
            for encoder, each in zip(self.text_encoders, ids, strict=True)
        ]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return TextEncoding(states, outputs[-1][0])

    def denoise(
        self, z_t: Tensor, t: Tensor, text: TextEncoding, size_ids: Tensor | None = None
    ) -> Tensor:
        """Predict noise or velocity.

        Args:
            z_t: (b, c, h, w) latents.
            t: (b,) timesteps.
            text: b prompts.
            size_ids: (b, 6), what SDXL is told of sizes, see `whole_picture`; other families are
                told nothing. None tells it of whole pictures of the latents' size.

        Returns:
            (b, c, h, w).
        """
        conditions = None
        if self.family.has_pooled_text:
            if size_ids is None:
                size_ids = self.size_ids(z_t, torch.float32)
            conditions = {"text_embeds": text.pooled, "time_ids": size_ids.float()}
        prediction: Tensor = self.unet(
            z_t.to(self.dtype),
            t,
            encoder_hidden_states=text.states.to(self.dtype),
            added_cond_kwargs=conditions,
            return_dict=False,
        )[0]
        return prediction

    def size_ids(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the ids (b, 6) of whole pictures of latents (b, c, h, w), on their device."""
        told = whole_picture(Size.of(z.shape).times(self.vae_factor))
        return _on_device(told, z.device, dtype).expand(len(z), -1)

    def add_noise(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps, all (b, c, h, w), t (b,)."""
        z_t: Tensor = self.noise_scheduler.add_noise(z, eps, t)
        return z_t

    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return what the UNet should predict: the noise, or the velocity (arXiv:2202.00512)."""
        if self.prediction_type == "epsilon":
            return eps
        velocity: Tensor = self.noise_scheduler.get_velocity(z, eps, t)
        return velocity

    def content_hash(self) -> str:
        """Return the sha256 over the UNet's parameter names and their values in bfloat16, a dot,
        and the same over the text encoders and the VAE; `sources.is_same_base` compares.

        So a base has one hash in 32 bits and in bfloat16, and in float16 too if it is published in
        16 bits.
        """  # noqa: D205
        return f"{_hash_of([self.unet])}.{_hash_of([*self.text_encoders, self.vae])}"

    def text_hash(self) -> str:
        """Return the same over the text encoders."""
        return _hash_of(self.text_encoders)


def _hash_of(parts: Sequence[nn.Module]) -> str:
    digest = hashlib.sha256()
    for name, parameter in (pair for part in parts for pair in sorted(part.named_parameters())):
        digest.update(name.encode())
        rounded = parameter.detach().to("cpu", torch.bfloat16)
        digest.update(rounded.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
