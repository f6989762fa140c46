"""What a base was trained to predict, under which noise: stated, checked, and obeyed.

A wrong target is learnt in silence, so whatever contradicts itself is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_scene.errors import BackboneError

EPSILON, VELOCITY = "epsilon", "v_prediction"
FOREIGN = ("EDM", "FlowMatch")  # how the names of such schedulers begin


@dataclass(frozen=True)
class Stated:
    """What a file itself says of its training; None where it says nothing.

    Attributes:
        prediction_type: `epsilon` or `v_prediction`.
        has_zero_snr: Whether the last timestep is pure noise (arXiv:2305.08891).
    """

    prediction_type: str | None = None
    has_zero_snr: bool | None = None


def check_schedule(kind: str, config: Mapping[str, Any], *, where: object) -> None:
    """Refuse a scheduler whose training this package does not know.

    Args:
        kind: Name of its class.
        config: Its configuration.
        where: The base.

    Raises:
        BackboneError: EDM's or flow matching's noise, a foreign prediction, or zero terminal SNR
            with noise as the target, which says nothing at the last timestep.
    """
    predicted = config.get("prediction_type", EPSILON)
    is_flow = any(config.get(key) for key in ("use_flow_sigmas", "use_flow_match"))
    if kind.startswith(FOREIGN) or is_flow or "beta_schedule" not in config:
        raise BackboneError(
            "a base trained under another kind of noise (EDM or flow matching)",
            where=where,
            expected="the noise of Stable Diffusion: betas, as of DDIM or Euler schedulers",
            got=kind,
        )
    if predicted not in (EPSILON, VELOCITY):
        raise BackboneError(
            "a base with an unknown prediction type",
            where=where,
            expected=f"{EPSILON} or {VELOCITY}",
            got=predicted,
        )
    if config.get("rescale_betas_zero_snr") and predicted == EPSILON:
        raise BackboneError(
            "a base that contradicts itself: it predicts noise, at zero terminal SNR",
            where=where,
            expected=f"{VELOCITY} with zero terminal SNR, or {EPSILON} without it",
            hint="correct prediction_type or rescale_betas_zero_snr in its scheduler_config.json",
        )


def obey(pipeline: Any, stated: Stated) -> None:
    """Give a pipeline the schedule that its weights' own file states, in place."""
    from diffusers import DDIMScheduler

    old = pipeline.scheduler.config
    predicted = stated.prediction_type or old.get("prediction_type", EPSILON)
    has_zero_snr = stated.has_zero_snr
    if has_zero_snr is None:
        has_zero_snr = bool(old.get("rescale_betas_zero_snr")) and predicted == VELOCITY
    wanted = {"prediction_type": predicted, "rescale_betas_zero_snr": has_zero_snr}
    if all((old.get(key) or wanted[key] is False) == wanted[key] for key in wanted):
        return
    if has_zero_snr:
        wanted["timestep_spacing"] = "trailing"  # else sampling never starts at the last timestep
    unsaid = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    pipeline.scheduler = DDIMScheduler.from_config({**unsaid, **old, **wanted})
