"""Held draws: noise that is never trained on, and what the model says of it on the way.

From forward passes alone come the masked loss and every handle's attention over the photo:
"nobody says when to stop" is answered by numbers that training did not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.errors import SceneError
from lora_scene.learning.attention import AttentionRecorder, Columns, read_level
from lora_scene.learning.draws import step_generators
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.latents import EncodedVariant
from lora_scene.learning.losses import weighted_error
from lora_scene.recipe import Recipe
from lora_scene.scenes.mask_files import iou
from lora_scene.scenes.scene import Photo, Scene
from lora_scene.scenes.union import prompt_for

STREAM = 3  # of draws; those of training are 1 and 2, its phases
SHARES = (0.2, 0.4, 0.6, 0.8)  # of all timesteps: where held draws and attention are looked at
MOST_PHOTOS = 4

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Look:
    """What held draws say.

    Attributes:
        loss: The masked loss, averaged over masked cells and draws.
        ious: Each thing's IoU of attention and mask, 0..1, by handle.
        maps: (K, r_h, r_w) float32 over the first photo, averaged over its draws; 0 of a concept
            that it does not show.
    """

    loss: float
    ious: Mapping[str, float]
    maps: Maps


@torch.no_grad()
def look(
    backbone: Backbone, table: HandleTable, photos: Sequence[EncodedVariant], recipe: Recipe
) -> Look:
    """Look at the held draws with the model as it stands; no global generator is touched.

    Args:
        backbone: The base, what is trained in place, dropout off.
        table: The handles, spliced in.
        photos: The photos as they are, encoded; see `plain_photos`.
        recipe: Templates, seed, level of the maps.
    """
    recorder = AttentionRecorder(backbone.unet, level=read_level(backbone, recipe))
    losses: list[Tensor] = []
    totals: dict[int, list[Tensor]] = {}
    n_draws, at_once = max(len(SHARES), len(photos)), recipe.run.batch_size
    with recorder.attached():
        for index, photo in enumerate(photos):
            draws = range(index, n_draws, len(photos))
            for start in range(0, len(draws), at_once):  # no more than a step has room for
                part = draws[start : start + at_once]
                own, seen = _draw(backbone, table, recorder, photo, recipe, part)
                losses += own
                totals.setdefault(index, []).extend(seen)
    found = {index: torch.stack(maps).mean(dim=0) for index, maps in totals.items()}
    first = photos[0]
    maps = torch.zeros(len(table.concepts), *found[0].shape[1:])
    maps[list(first.present)] = found[0].cpu()
    return Look(float(torch.stack(losses).mean()), _ious(table, photos, found), maps.numpy())


def telling_photos(scene: Scene) -> tuple[Photo, ...]:
    """Return `MOST_PHOTOS` photos, in order: of those that show a concept more, the first ones.

    So held draws look at every concept, as far as so many photos can show them.
    """
    shown = [photo for photo in scene.photos if photo.present]
    chosen: list[int] = []
    unseen = {k for photo in shown for k in photo.present}
    for _ in shown[:MOST_PHOTOS]:
        rest = (i for i in range(len(shown)) if i not in chosen)
        chosen.append(max(rest, key=lambda i: len(unseen.intersection(shown[i].present))))
        unseen.difference_update(shown[chosen[-1]].present)
    return tuple(shown[i] for i in sorted(chosen))


def held_prompt(table: HandleTable, photo: EncodedVariant, recipe: Recipe) -> str:
    """Return the prompt of a photo's held draws: it names all that the photo shows."""
    drawn = [table.concepts[k] for k in photo.present]
    nouns = [concept.noun for concept in drawn] if recipe.handles.with_nouns else None
    return prompt_for([concept.handle for concept in drawn], nouns, recipe.handles.templates[0])


def refuse_cut_held(table: HandleTable, photos: Sequence[EncodedVariant], recipe: Recipe) -> None:
    """Refuse held draws whose prompts, which name all that a photo shows, would be cut.

    Raises:
        SceneError: So one would be.
    """
    prompts = [held_prompt(table, photo, recipe) for photo in photos]
    table.refuse_cut(prompts, "held draws", "run.patience=0, which hangs on none")


def is_cut_held(table: HandleTable, photos: Sequence[EncodedVariant], recipe: Recipe) -> bool:
    """Tell whether a held draw's prompt would be cut: a run without patience does without looks."""
    try:
        refuse_cut_held(table, photos, recipe)
    except SceneError:
        return True
    return False


def map_iou(attention: Maps, mask: Maps) -> float:
    """Return the IoU of a map's strong cells with a mask, both (r_h, r_w), 0..1.

    A map's cells are strong from half of its maximum on, a mask's are inside from 0.5 on.
    """
    peak = float(attention.max())
    return iou(attention >= 0.5 * peak, mask >= 0.5) if peak > 0 else 0.0


def _draw(
    backbone: Backbone,
    table: HandleTable,
    recorder: AttentionRecorder,
    photo: EncodedVariant,
    recipe: Recipe,
    draws: Sequence[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return some draws' masked losses, scalars, and maps (k, r_h, r_w) of the concepts present."""
    n = len(draws)
    ids = backbone.tokenize([table.expand(held_prompt(table, photo, recipe))] * n)
    z = photo.moments.mean[None].to(backbone.device).repeat(n, 1, 1, 1)
    generators = [step_generators(recipe.run.seed, STREAM, i)[1] for i in draws]
    eps = torch.cat([torch.randn(z[:1].shape, generator=noise) for noise in generators]).to(z)
    shares = [SHARES[i % len(SHARES)] for i in draws]
    t = torch.tensor([round(x * (backbone.n_timesteps - 1)) for x in shares], device=z.device)
    places = table.columns(ids[0][0], photo.present)
    columns = Columns.of([places] * n, ids[0].shape[1], z.device)
    z_t = backbone.add_noise(z, eps, t)
    told = torch.tensor([photo.size_ids] * n, device=z.device) if photo.size_ids else None
    with recorder.recording(columns, z_t):
        prediction = backbone.denoise(z_t, t, backbone.encode_tokens(ids), told)
    inside = photo.masks[list(photo.present)].amax(dim=0, keepdim=True)[None].to(z.device)
    target = backbone.target(z, eps, t)
    loss = weighted_error(prediction, target, inside.expand(n, -1, -1, -1), normalize="area")
    return list(loss), recorder.maps()


def _ious(
    table: HandleTable, photos: Sequence[EncodedVariant], found: Mapping[int, Tensor]
) -> dict[str, float]:
    """Return each thing's `map_iou`, the mean over photos."""
    scores: dict[str, list[float]] = {}
    for index, maps in found.items():
        photo = photos[index]
        for k, own in zip(photo.present, maps, strict=True):
            if table.concepts[k].is_background:
                continue
            one = map_iou(own.cpu().numpy(), photo.map_masks[k].numpy())
            scores.setdefault(table.concepts[k].handle, []).append(one)
    return {handle: sum(own) / len(own) for handle, own in scores.items()}
