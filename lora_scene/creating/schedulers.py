"""Samplers by name, each built from the base's own schedule.

A scheduler made from the base's configuration keeps its prediction type, its betas and its
zero-terminal SNR; only the solver changes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_scene.errors import CreationError, did_you_mean

OWN = "base"

# What single-file checkpoints leave unsaid, as all published Stable Diffusion bases have it;
# diffusers' defaults are those of pixel models, and clip latents to -1..1.
LATENT_DEFAULTS: Mapping[str, Any] = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler class, and what is set besides the base's configuration."""

    class_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


SAMPLERS: Mapping[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler"),
    "ddpm": Sampler("DDPMScheduler"),
    "dpm++": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-karras": Sampler(
        "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}
    ),
    "dpm++-sde": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler-a": Sampler("EulerAncestralDiscreteScheduler"),
    "heun": Sampler("HeunDiscreteScheduler"),
    "lms": Sampler("LMSDiscreteScheduler"),
    "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": Sampler("UniPCMultistepScheduler"),
}


def check_scheduler(name: str) -> None:
    """Refuse a name that is neither `base` nor a key of `SAMPLERS`.

    Raises:
        CreationError: It is neither.
    """
    if name != OWN and name not in SAMPLERS:
        raise CreationError(
            "no such scheduler",
            where=name,
            expected=", ".join([OWN, *SAMPLERS]),
            hint=did_you_mean(name, SAMPLERS),
        )


def make_scheduler(base: Any, name: str = OWN) -> Any:
    """Build a fresh scheduler on the base's schedule.

    Args:
        base: The base's own scheduler.
        name: A key of `SAMPLERS`, or `base` for the base's own.

    Raises:
        CreationError: An unknown name, or a solver that cannot follow the base's schedule.
    """
    config = {**LATENT_DEFAULTS, **base.config}
    if name == OWN:
        return type(base).from_config(base.config)
    check_scheduler(name)
    import diffusers

    sampler = SAMPLERS[name]
    kind = getattr(diffusers, sampler.class_name)
    _refuse_other_schedule(kind, config, name)
    return kind.from_config(config, **sampler.settings)


def draws_noise(scheduler: Any) -> bool:
    """Tell whether a scheduler draws noise of its own at its steps."""
    is_ancestral = "Ancestral" in type(scheduler).__name__
    is_sde = str(scheduler.config.get("algorithm_type", "")).startswith("sde")
    return is_ancestral or is_sde or type(scheduler).__name__ == "DDPMScheduler"


def _refuse_other_schedule(kind: Any, config: Mapping[str, Any], name: str) -> None:
    """Refuse a solver that would drop the base's zero-terminal SNR without a word."""
    if not config.get("rescale_betas_zero_snr"):
        return
    sampler = SAMPLERS[name]
    is_able = "rescale_betas_zero_snr" in inspect.signature(kind.__init__).parameters
    if is_able and not sampler.settings.get("use_karras_sigmas"):
        return
    able = [other for other in ("ddim", "dpm++", "euler", "unipc") if other != name]
    raise CreationError(
        "this scheduler cannot start at the base's zero-terminal SNR",
        where=name,
        expected=f"one that can, such as {', '.join(able)}",
        hint="leave --scheduler out to take the base's own",
    )
