"""Whether a base suits a training: family, size, no distillation, and the target that it states.

What is known from names and configurations is asked before training; what only the weights tell is
asked of them, by one prediction.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.families import Family
from lora_scene.backbones.noise_schedules import EPSILON, VELOCITY
from lora_scene.backbones.single_file import read_file
from lora_scene.backbones.training_size import FORCE, strange_size, wrong_size
from lora_scene.errors import BackboneError
from lora_scene.recipe.settings import Base

FEW_STEPS = re.compile(  # how distilled bases are named
    r"turbo|lightning|(?<![a-z])lcm|hyper[-_ ]?sd|(?<![a-z])dmd2?(?![a-z])|(?<![a-z])tcd(?![a-z])"
    r"|(?<![a-z])(?<!\d)[1248][-_ ]?steps?(?![a-z])",
    re.IGNORECASE,
)
FEW_STEP_SCHEDULERS = ("LCM", "TCD")  # how their names begin
PROBED = (0.3, 0.5, 0.7)  # of the timesteps: mini tells noise from velocity best there
CLEARLY_BETTER = 0.5  # the other target's error over the stated one's


def check_trainable(backbone: Backbone, base: Base) -> tuple[str, ...]:
    """Refuse a base that a recipe does not suit, unless `base.force` is set.

    Args:
        backbone: Loaded, at the recipe's resolution.
        base: The recipe's section.

    Returns:
        What a person should know, one sentence each.

    Raises:
        BackboneError: Another family than the recipe's, a size more than twice off, or a base
            distilled to few steps, whose shortcut training undoes.
    """
    problems = [*_unsuited(backbone, base)]
    if problems and not base.force:
        raise BackboneError.collect(problems, f"{backbone.name} does not suit this recipe")
    if problems:
        return tuple(f"{backbone.name}: {one.what}; base.force is set" for one in problems)
    return strange_size(backbone.own_resolution, backbone.resolution, backbone.name)


def check_family(family: Family | None, base: Base, *, where: object) -> None:
    """Refuse another family than a recipe's, as soon as it is known, unless `base.force` is set.

    Args:
        family: The base's; None where it is not known yet.
        base: The recipe's section.
        where: What the base is called.

    Raises:
        BackboneError: It is another.
    """
    problem = None if family is None or base.force else _other_family(family, base, where)
    if problem is not None:
        raise problem


@torch.no_grad()
def check_prediction(backbone: Backbone, z: Tensor, generator: torch.Generator) -> None:
    """Ask a base's weights what they predict, and refuse a target that they contradict.

    For latents of a photo under known noise the errors of both targets are compared, each over its
    own size: E[|f(z_t) - eps|^2] / E[|eps|^2], and the same for the velocity. A trained base is
    near one of them; an untrained one is near neither and is left alone. The mean over three
    timesteps decides.

    Args:
        backbone: Where it shall compute.
        z: (c, h, w) latents of a photo.
        generator: On the CPU.

    Raises:
        BackboneError: The other target than the stated one is predicted.
    """
    errors = dict.fromkeys((EPSILON, VELOCITY), 0.0)
    text = backbone.encode_tokens(backbone.tokenize([""]))
    z = z[None].to(backbone.device, torch.float32)
    for part in PROBED:
        t = torch.tensor([int(part * backbone.n_timesteps)], device=z.device)
        eps = torch.randn(z.shape, generator=generator).to(z.device)
        found = backbone.denoise(backbone.add_noise(z, eps, t), t, text).float()
        velocity = backbone.noise_scheduler.get_velocity(z, eps, t)
        for name, target in ((EPSILON, eps), (VELOCITY, velocity)):
            error = (found - target).square().sum() / target.square().sum()
            errors[name] += float(error) / len(PROBED)
    stated = backbone.prediction_type
    other = VELOCITY if stated == EPSILON else EPSILON
    if errors[other] < CLEARLY_BETTER * min(errors[stated], 1.0):
        raise BackboneError(
            "the base's weights predict another target than its files say",
            where=backbone.name,
            expected=f"{stated}, as they say",
            got=f"{other} (error {errors[other]:.2f} against {errors[stated]:.2f})",
            hint="correct prediction_type in its scheduler_config.json; for a single file give "
            "base.config, a folder or hub id with the right one",
        )


def _other_family(family: Family, base: Base, where: object) -> BackboneError | None:
    if base.family in ("", family.key):
        return None
    return BackboneError(
        "the base is of another family than the recipe's",
        where=where,
        expected=base.family,
        got=family.key,
        hint=f"take a recipe of its family (lora-scene recipes), or {FORCE}",
    )


def _unsuited(backbone: Backbone, base: Base) -> list[BackboneError]:
    """Return what speaks against a training, one problem each."""
    found: list[BackboneError] = []
    other = _other_family(backbone.family, base, backbone.name)
    found += [] if other is None else [other]
    wrong = wrong_size(backbone.own_resolution, backbone.resolution, backbone.name)
    found += [] if wrong is None else [wrong]
    sign = _sign_of_distillation(backbone, base.model)
    if sign is not None:
        found.append(
            BackboneError(
                "the base seems distilled to few steps, which training undoes",
                where=backbone.name,
                got=sign,
                hint="train on the base that it came from, and use the adapter with it and with "
                f"this one; {FORCE}",
            )
        )
    return found


def _sign_of_distillation(backbone: Backbone, model: str) -> str | None:
    """Return what shows that a base needs few steps: its name, its scheduler or its spacing."""
    path = Path(model).expanduser()
    title = read_file(path).title if path.is_file() else ""
    for name in (backbone.name, title):
        match = FEW_STEPS.search(name)
        if match:
            return f"{match.group()!r} in its name, {name}"
    scheduler = backbone.pipeline.scheduler
    kind = type(scheduler).__name__
    if kind.startswith(FEW_STEP_SCHEDULERS):
        return f"its scheduler, {kind}"
    is_turbo = (
        kind.startswith("Euler")
        and scheduler.config.get("timestep_spacing") == "trailing"
        and backbone.prediction_type == EPSILON
    )
    return f"its scheduler, {kind} with trailing timesteps" if is_turbo else None
