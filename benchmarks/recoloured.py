"""The base's answer around the things, in the photo's colours in place of its own: a trial.

    python -m benchmarks.recoloured SCENE [SCENE ...] --runs DIR [--around recoloured] [--out FILE]

`ours` of the protocol `cures` is trained and judged on each scene with one of these around the
things, and a line a scene is written:

    base         what the package does: the untouched base's answer for the class nouns
    photo        the photo itself
    free         the base's answer, but nothing where things are that the prompt leaves out
    recoloured   the same, and under much noise the thing that the base expects, wherever it expects
                 it, in the mean colours that it has in the photo

Under noise the base's answer at a cell is a mean over what may be there. How much of it is the
thing, the attention to its noun tells: P = min(1, n a / sum(a)) with n the cells of its mask and a
the attention above its floor. What the base expects is taken out where a > 0, filled from around,
and the photo's mean latent put in its place: x0 = (1 - sum P) fill + sum P mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.records import circumstances, write
from lora_scene.creating.studio import open_studio
from lora_scene.judging.evaluation import draw_and_weigh
from lora_scene.judging.judge import load_judge
from lora_scene.learning import step
from lora_scene.learning.attention import Columns
from lora_scene.learning.draws import Sample
from lora_scene.learning.lora import without_lora
from lora_scene.learning.losses import weighted_error
from lora_scene.learning.objective import Draw, Objective
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop.methods import recipes_of, train_method
from lora_scene.workshop.protocol import Attempt, read_protocol

PROTOCOL = Path(__file__).parent / "protocols" / "cures.toml"
FLOOR, SPAN = 0.25, 0.35  # of an attention over its maximum: nothing below, all of it above both
NOISY = (600.0, 800.0)  # timesteps: as it is below, all of it recoloured above
SIGMA, REACH = 2.0, 6  # cells, of the blur that fills from around


class Free(Objective):
    """Holds the cells of things that the prompt leaves out to nothing."""

    def _diffusion(
        self, samples: Sequence[Sample], prediction: Tensor, target: Tensor, held: Tensor | None
    ) -> Tensor:
        assert held is not None, "recipe `mini` asks the base"
        settings = self._recipe.masked_loss
        inside, every = (
            torch.stack([mask.amax(dim=0, keepdim=True) for mask in masks])
            for masks in zip(*((_drawn(one), one.variant.masks) for one in samples), strict=True)
        )
        target = inside * target + (1 - inside) * held
        weight = torch.maximum(inside, (1 - every) * settings.outside_weight)
        return weighted_error(prediction, target, weight, normalize=settings.normalize).mean()


class Recoloured(Free):
    """Has the base expect the things in the photo's colours; of velocities alone, on the CPU."""

    @torch.no_grad()
    def _held_to_base(
        self, samples: Sequence[Sample], z_t: Tensor, t: Tensor, draw: Draw | None
    ) -> Tensor:
        if draw is not None and draw in self._answers:
            return self._answers[draw]
        backbone, recorder = self._backbone, self._recorder
        assert recorder is not None, "both phases of recipe `mini` weigh the attention"
        assert backbone.prediction_type == "v_prediction"
        prompts = [one.plain_prompt for one in samples]
        ids = backbone.tokenize(prompts)[0]
        places = [
            [self._tokens(row, self._table.concepts[k].noun) for k in one.subset]
            for row, one in zip(ids, samples, strict=True)
        ]
        with without_lora(backbone), recorder.recording(Columns.of(places, ids.shape[1]), z_t):
            text = self._encodings.encode(prompts)
            velocity = backbone.denoise(z_t, t, text, self._size_ids(samples, z_t)).float()
        kept = backbone.noise_scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        clean = kept.sqrt() * z_t - (1 - kept).sqrt() * velocity
        low, high = NOISY
        share = ((t - low) / (high - low)).clamp(0, 1).view(-1, 1, 1, 1)
        wanted = torch.stack(
            [
                recoloured(x, attention.float(), _drawn(one), one.z)
                for x, attention, one in zip(clean, recorder.maps(), samples, strict=True)
            ]
        )
        answer: Tensor = velocity + share * (clean - wanted) / (1 - kept).sqrt()
        if draw is not None:
            self._answers[draw] = answer
        return answer

    def _tokens(self, ids: Tensor, noun: str) -> list[int]:
        """Return where a noun's tokens stand in a prompt's ids."""
        piece = self._backbone.tokenizers[0](noun, add_special_tokens=False).input_ids
        row, n = ids.tolist(), len(piece)
        starts = [i for i in range(len(row) - n + 1) if row[i : i + n] == piece]
        assert starts, f"{noun} does not stand in the prompt"
        return [i + j for i in starts for j in range(n)]


def recoloured(clean: Tensor, attention: Tensor, masks: Tensor, z: Tensor) -> Tensor:
    """Return what the base expects, its things in the photo's colours.

    Args:
        clean: (c, h, w), its estimate of the latent.
        attention: (k, r_h, r_w), to each named thing's noun.
        masks: (k, h, w), 0..1, of the things in the photo.
        z: (c, h, w), the photo's latent.
    """
    peaks = attention.amax(dim=(1, 2), keepdim=True)
    size = clean.shape[-2:]
    above = F.interpolate((attention / peaks)[None], size, mode="bilinear", align_corners=False)[0]
    above = ((above - FLOOR) / SPAN).clamp(0, 1)
    share = above * masks.sum(dim=(1, 2), keepdim=True) / above.sum(dim=(1, 2), keepdim=True)
    share = share / share.sum(dim=0, keepdim=True).clamp_min(1)
    colours = torch.einsum("chw,khw->kc", z, masks) / masks.sum(dim=(1, 2))[:, None]
    expected = F.max_pool2d(above.amax(dim=0, keepdim=True)[None], 3, 1, 1)[0]
    known = (1 - expected) * (1 - masks.amax(dim=0, keepdim=True)) + 1e-6
    around = _filled(clean, known)
    things = torch.einsum("khw,kc->chw", share, colours)
    mixed = around * (1 - share.sum(dim=0, keepdim=True)) + things
    return clean * (1 - expected) + mixed * expected


def _filled(x: Tensor, known: Tensor) -> Tensor:
    """Return (c, h, w) as it is around each cell, by what is known (1, h, w), 0..1."""
    mean = (x * known).sum(dim=(1, 2), keepdim=True) / known.sum()
    return (_blurred(x * known) + 1e-3 * mean) / (_blurred(known) + 1e-3)


def _blurred(x: Tensor) -> Tensor:
    line = torch.exp(-(torch.arange(-REACH, REACH + 1).float() ** 2) / (2 * SIGMA**2))
    line = (line / line.sum()).view(1, 1, 1, -1)
    across = F.conv2d(x[:, None], line, padding=(0, REACH))
    return F.conv2d(across, line.mT, padding=(REACH, 0))[:, 0]


def _drawn(sample: Sample) -> Tensor:
    return sample.variant.masks[list(sample.subset)]


AROUND = {"base": Objective, "photo": Objective, "free": Free, "recoloured": Recoloured}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and judge every scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--around", choices=AROUND, default="recoloured")
    parser.add_argument("--forwards", type=int, help="image-forwards; the protocol's if not given")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    protocol, about = read_protocol(PROTOCOL), circumstances("cpu")
    if given.forwards:
        protocol = replace(protocol, image_forwards=given.forwards)
    ours = next(method for method in protocol.methods if method.name == "ours")
    if given.around == "photo":
        ours = replace(ours, overrides=("masked_loss.outside_target=data",))
    judge = load_judge("mini", device="cpu")
    for place in given.scenes:
        scene = load_scene(place)
        recipes = recipes_of(protocol, Attempt(ours, "development", place, 0), scene=scene)
        with mock.patch.object(step, "Objective", AROUND[given.around]):
            trained = train_method(
                recipes, given.runs / f"{place.name}-{given.around}", device="cpu"
            )
        studio = open_studio([*trained.folders], device="cpu")
        found = draw_and_weigh(studio, scene, judge=judge, plan=protocol.plan)
        told = {"scene": place.name, "around": given.around, "seed": 0}
        told |= {"image_forwards": trained.image_forwards, "seconds": trained.seconds}
        concepts = {handle: values["identity"] for handle, values in found.concepts.items()}
        write({**told, "summary": dict(found.summary), "identity": concepts, **about}, given.out)


if __name__ == "__main__":
    main()
