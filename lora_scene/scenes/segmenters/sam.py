"""SAM: boxes, points and strokes; lists regions too.

Kirillov et al., *Segment Anything* (arXiv:2304.02643). The photo is scaled so that its longer
side fits the network's square, and padded on the right and below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lora_scene.scenes.mask_prompts import Prompt, Stroke
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.segmenters.automatic import propose_on_grid
from lora_scene.scenes.segmenters.networks import Network, to_photo_size, to_values
from lora_scene.scenes.segmenters.regions import Segment, pick_regions

POINTS_A_STROKE = 5


class Sam(Network):
    """SAM, of any size, from a hub id or a folder."""

    name = "sam"
    accepts = frozenset({"box", "point", "stroke", "pick"})
    kind = "SamModel"
    usual = "facebook/sam-vit-base"

    @property
    def side(self) -> int:
        """Return the side of the network's input, pixels."""
        return int(self._network.config.vision_config.image_size)

    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Ask for one mask per prompt, the photo being encoded once."""
        shape = pixels.shape[:2]
        masks = np.zeros((len(prompts), *shape), dtype=np.float32)
        picked = [k for k, prompt in enumerate(prompts) if prompt.pick is not None]
        if picked:
            masks[picked] = pick_regions(
                self.propose(pixels), [prompts[k] for k in picked], shape=shape
            )
        embedding = self._encode(pixels)
        for k, prompt in enumerate(prompts):
            if k not in picked:
                points, box = _marks(prompt)
                logits, _ = self._ask(embedding, shape, [points] if points else None, box)
                masks[k] = self._to_photo(logits, shape)[0]
        return masks

    def propose(self, pixels: Pixels) -> tuple[Segment, ...]:
        """List the regions that a grid of points finds."""
        embedding = self._encode(pixels)
        shape = pixels.shape[:2]

        def answer(points: Sequence[tuple[float, float]]) -> tuple[Mask, list[float]]:
            logits, scores = self._ask(embedding, shape, [[(x, y, True)] for x, y in points], None)
            return self._to_photo(logits, shape), scores

        return propose_on_grid(answer, shape)

    def _inner(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that the photo takes of the network's square."""
        factor = self.side / max(shape)
        return int(shape[0] * factor + 0.5), int(shape[1] * factor + 0.5)

    def _values(self, pixels: Pixels) -> torch.Tensor:
        height, width = self._inner(pixels.shape[:2])
        square = torch.zeros(1, 3, self.side, self.side)
        square[:, :, :height, :width] = to_values(pixels, (height, width))
        return square

    @torch.no_grad()
    def _encode(self, pixels: Pixels) -> Any:
        return self._network.get_image_embeddings(self._values(pixels).to(self._device))

    @torch.no_grad()
    def _ask(
        self,
        embedding: Any,
        shape: tuple[int, int],
        points: Sequence[Sequence[tuple[float, float, bool]]] | None,
        box: tuple[float, float, float, float] | None,
    ) -> tuple[torch.Tensor, list[float]]:
        """Ask for n masks, each from its points, or for one from a box and points.

        Returns:
            (n, h, w) logits over the network's square, and n scores in 0..1.
        """
        height, width = self._inner(shape)
        down, across = height / shape[0], width / shape[1]
        inputs: dict[str, torch.Tensor] = {}
        if points is not None:
            places = [[[x * across, y * down] for x, y, _ in group] for group in points]
            inputs["input_points"] = torch.tensor([places], device=self._device)
            labels = [[int(is_inside) for _, _, is_inside in group] for group in points]
            inputs["input_labels"] = torch.tensor([labels], device=self._device)
        if box is not None:
            corners = [box[0] * across, box[1] * down, box[2] * across, box[3] * down]
            inputs["input_boxes"] = torch.tensor([[corners]], device=self._device)
        is_ambiguous = box is None and points is not None and max(map(len, points)) == 1
        answer = self._network(image_embeddings=embedding, multimask_output=is_ambiguous, **inputs)
        best = answer.iou_scores[0].argmax(dim=1)
        rows = torch.arange(len(best), device=best.device)
        scores = answer.iou_scores[0][rows, best].clamp(0, 1)
        return answer.pred_masks[0][rows, best], scores.tolist()

    def _to_photo(self, logits: torch.Tensor, shape: tuple[int, int]) -> Mask:
        """Bring logits over the square to the photo's size, the padding cut off."""
        square = torch.nn.functional.interpolate(
            logits[None].float(), size=(self.side, self.side), mode="bilinear"
        )[0]
        height, width = self._inner(shape)
        return to_photo_size(square[:, :height, :width], shape)


class Sam2(Sam):
    """SAM 2 on still pictures (arXiv:2408.00714): its square is the photo, stretched."""

    name = "sam2"
    kind = "Sam2Model"
    usual = "facebook/sam2.1-hiera-small"

    @property
    def side(self) -> int:
        """Return the side of the network's input, pixels."""
        return int(self._network.prompt_encoder.input_image_size)

    def _inner(self, shape: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side

    def _values(self, pixels: Pixels) -> torch.Tensor:
        return to_values(pixels, (self.side, self.side))


def _marks(
    prompt: Prompt,
) -> tuple[list[tuple[float, float, bool]], tuple[float, float, float, float] | None]:
    """Return a prompt's points, strokes among them, and its box, as plain numbers."""
    points = [(p.x, p.y, p.is_inside) for p in prompt.points]
    for stroke in prompt.strokes:
        points += [(x, y, stroke.is_inside) for x, y in _along(stroke)]
    box = prompt.box
    return points, None if box is None else (box.left, box.top, box.right, box.bottom)


def _along(stroke: Stroke) -> list[tuple[float, float]]:
    """Return a few points, evenly spaced along a stroke."""
    path = np.asarray(stroke.path, dtype=np.float64)
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    stops = np.linspace(0.0, lengths[-1], POINTS_A_STROKE)
    xs, ys = (np.interp(stops, lengths, path[:, axis]) for axis in (0, 1))
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
