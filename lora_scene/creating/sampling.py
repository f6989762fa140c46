"""The sampling loop: what the stock pipelines do, with room for guides between the steps.

prompt -> encoding.encode_prompts -> text
seeds  -> start_noise    -> z_T
z_T    -> denoise(text, guides) -> z_0 -> decode -> pixels

Where no guide acts, a picture equals the stock pipeline's bit for bit (tested, on the CPU).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding
from lora_scene.backbones.decoding import decode_latent, wide_enough
from lora_scene.creating.encoding import Text
from lora_scene.creating.requests import Sampling
from lora_scene.creating.schedulers import make_scheduler
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.pictures import Pixels
from lora_scene.size import Size

Tick = Callable[[int, int], None]  # steps done, of how many, in the run at hand


@dataclass(frozen=True)
class Step:
    """A denoising step, as guides see it.

    Attributes:
        index: 0-based, counted from the first step that is run.
        n_steps: Steps that are run.
        t: The timestep, on the CPU: a solver that reads it on a device waits for it.
        there: The same on the base's device, for the UNet.
        scheduler: Mid-run; its own counter points at this step before it, at the next after it.
        next_t: The timestep after it on that device, or None after the last step.
    """

    index: int
    n_steps: int
    t: Tensor
    there: Tensor
    scheduler: Any
    next_t: Tensor | None


class Guide(Protocol):
    """What acts on the latents (b, c, h, w) around a step."""

    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Return the latents that the step begins with."""
        ...

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Return the latents that the step ends with."""
        ...


@dataclass(frozen=True)
class Start:
    """Where sampling begins.

    Attributes:
        eps: (b, c, h, w) standard normal noise.
        generators: One per picture, on the CPU; solvers that draw noise at each step use them.
        z: (b, c, h, w) clean latents that are noised first, or None to start at pure noise.
    """

    eps: Tensor
    generators: tuple[torch.Generator, ...]
    z: Tensor | None = None


def start_noise(studio: Studio, seeds: Sequence[int], size: Size) -> Start:
    """Draw each picture's noise from its own seed, on the CPU, whatever batch it is in.

    Args:
        studio: Says how many channels and how large the latents are.
        seeds: One per picture.
        size: Of the pictures, in pixels.

    Raises:
        CreationError: See `check_size`.
    """
    latents = check_size(studio, size).cells(studio.backbone.vae_factor)
    shape = (1, studio.backbone.latent_channels, *latents.rows_columns)
    generators = tuple(torch.Generator().manual_seed(seed) for seed in seeds)
    eps = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    return Start(eps, generators)


def check_size(studio: Studio, size: Size | None) -> Size:
    """Return the size, the base's own by default.

    Raises:
        CreationError: A side is not a multiple of what VAE and UNet halve.
    """
    if size is None:
        return Size(studio.backbone.resolution, studio.backbone.resolution)
    multiple = studio.backbone.multiple
    if any(side < multiple or side % multiple for side in size):
        near = Size(*(max(round(side / multiple), 1) * multiple for side in size))
        raise CreationError(
            "this base cannot draw at that size",
            where="size",
            expected=f"multiples of {multiple} pixels, such as {near}",
            got=size,
        )
    return Size(*size)


@torch.no_grad()
def denoise(
    studio: Studio,
    text: Text,
    start: Start,
    *,
    sampling: Sampling,
    guides: Sequence[Guide] = (),
    tick: Tick | None = None,
) -> Tensor:
    """Run the solver from noise, or from noised latents, to clean latents (b, c, h, w).

    Args:
        studio: The base and its adapters.
        text: One prompt a picture.
        start: The noise, and what it is added to.
        sampling: Solver, steps, guidance, strength.
        guides: Act in this order around every step.
        tick: Called after every step.

    Raises:
        CreationError: No such solver, or one that cannot follow the base's schedule in so many
            steps.
    """
    scheduler = make_scheduler(studio.pipeline.scheduler, sampling.scheduler)
    timesteps = _begin(scheduler, sampling)
    there = _uploaded(timesteps, studio.backbone.device)
    z_t = _first_latents(studio.backbone, scheduler, start, timesteps[:1])
    extra = _step_arguments(scheduler, start)
    guidance = sampling.guidance
    if guidance is None:
        guidance = studio.backbone.usual_guidance
    for index, t in enumerate(timesteps):
        following = there[index + 1] if index + 1 < len(there) else None
        step = Step(index, len(there), t, there[index], scheduler, following)
        for guide in guides:
            z_t = guide.before(z_t, step)
        prediction = predict(studio, z_t, step, text, guidance=guidance)
        z_t = scheduler.step(prediction, t, z_t, return_dict=False, **extra)[0]
        for guide in guides:
            z_t = guide.after(z_t, step)
        if tick is not None:
            tick(index + 1, len(timesteps))
    return z_t


def predict(studio: Studio, z_t: Tensor, step: Step, text: Text, *, guidance: float) -> Tensor:
    """Return the guided prediction (b, c, h, w), of noise or velocity: neg + guidance (pos - neg).

    At a guidance of 1 or less it is the prompt's alone (arXiv:2207.12598).
    """
    if guidance <= 1:
        scaled = step.scheduler.scale_model_input(z_t, step.t)
        return run_unet(studio, scaled, step, text.positive)
    scaled = step.scheduler.scale_model_input(torch.cat([z_t] * 2), step.t)
    negative, positive = run_unet(studio, scaled, step, text.both).chunk(2)
    guided: Tensor = negative + guidance * (positive - negative)
    return guided


def run_unet(studio: Studio, scaled: Tensor, step: Step, text: TextEncoding) -> Tensor:
    """Return the UNet's prediction (b, c, h, w) for latents scaled for it."""
    conditions = None
    if text.pooled is not None:
        ids = studio.backbone.size_ids(scaled, text.states.dtype)
        conditions = {"text_embeds": text.pooled, "time_ids": ids}
    prediction: Tensor = studio.backbone.unet(
        scaled,
        step.there,
        encoder_hidden_states=text.states,
        added_cond_kwargs=conditions,
        return_dict=False,
    )[0]
    return prediction


@torch.no_grad()
def decode(studio: Studio, z: Tensor) -> list[Pixels]:
    """Decode clean latents (b, c, h, w) to pictures (H, W, 3) uint8, one by one.

    Raises:
        CreationError: Something is not finite, and would be black.
    """
    vae = studio.backbone.vae
    pictures = []
    with wide_enough(vae):
        for latent in z:
            _refuse_non_finite(studio, latent, "latents")
            decoded = decode_latent(vae, latent[None])
            _refuse_non_finite(studio, decoded, "decoder's pixels")
            shares = (decoded[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).float().cpu().numpy()
            pictures.append((shares * 255).round().astype("uint8"))
    return pictures


def _refuse_non_finite(studio: Studio, values: Tensor, what: str) -> None:
    if not bool(values.isfinite().all()):
        dtype = str(values.dtype).removeprefix("torch.")
        raise CreationError(
            "the picture is no picture: it holds infinities or is not a number",
            where=studio.backbone.name,
            got=f"the {what} in {dtype}",
            hint="smaller weights, strengths and guidance"
            + ("" if dtype == "float32" else ", or --dtype fp32"),
        )


def _first_latents(backbone: Backbone, scheduler: Any, start: Start, t: Tensor) -> Tensor:
    """Return pure noise at the solver's first level, or clean latents noised to t (1,)."""
    eps = start.eps.to(backbone.device, backbone.dtype)
    z_t: Tensor
    if start.z is None:
        z_t = eps * scheduler.init_noise_sigma
    else:
        z_t = scheduler.add_noise(start.z.to(eps), eps, t)
    return z_t


def _begin(scheduler: Any, sampling: Sampling) -> Tensor:
    """Return the timesteps that are run; the solver counts its steps from the first of them.

    Raises:
        CreationError: The solver would leave the timesteps that the base was trained on: some of
            them raise there, some repeat a step, and some read the schedule's other end.
    """
    n_trained = int(scheduler.config.num_train_timesteps)
    if sampling.n_steps <= n_trained:
        scheduler.set_timesteps(sampling.n_steps)
    visited = scheduler.timesteps
    if sampling.n_steps > n_trained or not 0 <= float(visited.min()) <= visited.max() < n_trained:
        raise CreationError(
            "this solver cannot take so many steps on this base",
            where="steps",
            expected=f"fewer; the base was trained on {n_trained} timesteps",
            got=sampling.n_steps,
        )
    order = getattr(scheduler, "order", 1)
    if sampling.strength < 1 and hasattr(scheduler, "plms_timesteps"):
        return _begin_plms(scheduler.timesteps, sampling.strength)
    n_all = len(scheduler.timesteps) // order or 1
    skipped = 0
    if sampling.strength < 1:
        skipped = _n_skipped(n_all, sampling.strength) * order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    timesteps: Tensor = scheduler.timesteps[skipped:]
    return timesteps


def _uploaded(timesteps: Tensor, device: torch.device) -> Tensor:
    """Return timesteps on a device; the UNet reads them in float32, and MPS has no more."""
    return timesteps.to(device, torch.float32 if timesteps.is_floating_point() else None)


def _begin_plms(timesteps: Tensor, strength: float) -> Tensor:
    """Return PNDM's timesteps from the middle on: it always visits the second of them twice."""
    once = torch.unique_consecutive(timesteps)
    kept = once[_n_skipped(len(once), strength) :]
    return torch.cat([kept[:2], kept[1:]])


def _n_skipped(n_steps: int, strength: float) -> int:
    """Return how many steps a strength below 1 leaves out: one at least, and never the last."""
    return min(max(round(n_steps * (1 - strength)), 1), n_steps - 1)


def _step_arguments(scheduler: Any, start: Start) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    if "generator" not in accepted:
        return {}
    return {"generator": list(start.generators)}
