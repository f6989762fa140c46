"""CLIP-guided sampling of the untouched base, towards the looks of a scene's concepts.

The baseline without any training: at each step the clean picture is foreseen, decoded, looked at
through several windows, and the latents are moved so that for every named concept some window
looks more like its cut-out. After CLIP-guided diffusion (Crowson 2021; GLIDE, arXiv:2112.10741).

With the embedded judge the guide and the judge are one network, so that this baseline's identity
is flattered: it is told in the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lora_scene.backbones.decoding import unscaled, wide_enough
from lora_scene.creating.encoding import Text
from lora_scene.creating.rendering import encode, render
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.sampling import Step, run_unet
from lora_scene.creating.schedulers import make_scheduler
from lora_scene.creating.steering import GRADIENT_SCALE
from lora_scene.creating.studio import Studio
from lora_scene.errors import JudgingError
from lora_scene.judging.encoders import ClipEncoder
from lora_scene.judging.finding import cut_out
from lora_scene.judging.plans import Cell
from lora_scene.judging.watched_drawing import AttentionWatch, Drawn
from lora_scene.scenes.scene import INSIDE, Scene

WINDOW = 0.6  # side of the small windows, as a share of the picture's
SHARPNESS = 20.0  # of the soft maximum over windows


class ClipGuide:
    """Moves latents towards pictures in which CLIP sees the concepts.

    Args:
        studio: The bare base.
        encoder: The guide's eyes.
        text: The prompts, encoded.
        looks: One (k, d) tensor a picture: unit embeddings of its named concepts' cut-outs.
        scale: Length of a move, as a share of the noise's.
    """

    def __init__(
        self,
        studio: Studio,
        encoder: ClipEncoder,
        text: Text,
        *,
        looks: Sequence[Tensor],
        scale: float,
    ) -> None:
        self._studio = studio
        self._encoder = encoder
        self._text = text
        self._looks = looks
        self._scale = scale

    @torch.enable_grad()
    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Return the latents, moved up the gradient."""
        deviation = (1 - step.scheduler.alphas_cumprod[int(step.t)]).sqrt()
        z = z_t.detach().requires_grad_(True)
        pictures = self._foresee(z, step)
        (gradient,) = torch.autograd.grad(GRADIENT_SCALE * self._agreement(pictures), z)
        gradient = gradient.float()  # squares underflow in float16
        size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        moved: Tensor = z_t.float() + self._scale * deviation * (gradient / size)
        return moved.to(z_t).detach()

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Return the latents as they are."""
        return z_t

    def _foresee(self, z_t: Tensor, step: Step) -> Tensor:
        """Return the clean pictures (b, 3, H, W) in 0..1 that the base foresees."""
        scheduler, vae = step.scheduler, self._studio.backbone.vae
        scaled = scheduler.scale_model_input(z_t, step.t)
        output = run_unet(self._studio, scaled, step, self._text.positive)
        share = scheduler.alphas_cumprod[int(step.t)]
        z = clean_latents(z_t, output, share, self._studio.backbone.prediction_type)
        decoded: Tensor = vae.decode(unscaled(vae, z.to(vae.dtype)), return_dict=False)[0]
        return (decoded / 2 + 0.5).clamp(0, 1)

    def _agreement(self, pictures: Tensor) -> Tensor:
        """Return the sum over pictures of the mean over concepts of the best window's cosine."""
        views = torch.stack([self._encoder.embed_tensor(view) for view in windows(pictures)], dim=1)
        total = pictures.new_zeros(())
        for own, looks in zip(views, self._looks, strict=True):  # (n_windows, d), (k, d)
            scores = SHARPNESS * own @ looks.T
            total = total + scores.logsumexp(dim=0).mean() / SHARPNESS
        return total


def clean_latents(z_t: Tensor, output: Tensor, share: Tensor, prediction_type: str) -> Tensor:
    """Return the latents that a prediction foresees.

    Args:
        z_t: Noised, sqrt(share) z + sqrt(1 - share) eps.
        output: The UNet's.
        share: Of the signal's variance, the schedule's cumulative product of alphas, 0..1.
        prediction_type: `epsilon` or `v_prediction` (arXiv:2202.00512).
    """
    if prediction_type == "v_prediction":
        return share.sqrt() * z_t - (1 - share).sqrt() * output
    return (z_t - (1 - share).sqrt() * output) / share.sqrt()


def windows(pictures: Tensor) -> Iterator[Tensor]:
    """Yield the whole of pictures (b, 3, H, W), their middle and their four corners."""
    yield pictures
    height, width = pictures.shape[-2:]
    h, w = round(WINDOW * height), round(WINDOW * width)
    corners = [(top, left) for top in (0, height - h) for left in (0, width - w)]
    for top, left in [((height - h) // 2, (width - w) // 2), *corners]:
        yield pictures[..., top : top + h, left : left + w]


def draw_guided(
    studio: Studio,
    cells: Sequence[Cell],
    scene: Scene,
    *,
    encoder: ClipEncoder,
    sampling: Sampling,
    scale: float,
    batch_size: int = 4,
) -> Iterator[Drawn]:
    """Draw a plan's pictures with the bare base, its prompts with class nouns, led by CLIP.

    Args:
        studio: The bare base.
        cells: The pictures.
        scene: Framed to the base's size.
        encoder: The guide's eyes.
        sampling: Solver, steps, guidance.
        scale: See `ClipGuide`.
        batch_size: Pictures drawn at once.

    Raises:
        JudgingError: The solver's latents are not those of its training schedule.
    """
    _refuse_solver(studio, sampling)
    looks = _looks(scene, encoder)
    for start in range(0, len(cells), batch_size):
        batch = cells[start : start + batch_size]
        asked = [Request(cell.plain, cell.asked.seed, sampling=sampling) for cell in batch]
        text, own = encode(studio, asked), [looks[list(cell.subset)] for cell in batch]
        guide = ClipGuide(studio, encoder, text, looks=own, scale=scale)
        named = [[scene.nouns[k] for k in cell.subset] for cell in batch]
        watch = AttentionWatch(studio, [one.prompt for one in asked], sampling, words=named)
        with wide_enough(studio.backbone.vae):
            done = render(studio, asked, text=text, guides=[guide, watch])
        for n, maps in enumerate(watch.mean_maps()):
            handles = tuple(scene.handles[k] for k in batch[n].subset)
            yield Drawn(asked[n], done.pixels[n], handles, maps.cpu().numpy())


def _refuse_solver(studio: Studio, sampling: Sampling) -> None:
    """Refuse a solver whose latents are not those of its training schedule."""
    scheduler = make_scheduler(studio.pipeline.scheduler, sampling.scheduler)
    if scheduler.init_noise_sigma != 1:
        raise JudgingError(
            "CLIP cannot lead this solver",
            where="scheduler",
            expected="ddim, dpm++, pndm or unipc",
            got=f"{sampling.scheduler} ({type(scheduler).__name__})",
        )


def _looks(scene: Scene, encoder: ClipEncoder) -> Tensor:
    """Return a unit row (K, d) a concept: the mean over its photos, zeros for a background."""
    rows = []
    for k, concept in enumerate(scene.concepts):
        cuts = [
            cut_out(photo.pixels, photo.masks[k] >= INSIDE)
            for photo in scene.photos
            if k in photo.present
        ]
        mean = torch.from_numpy(encoder.embed_pictures(cuts).mean(axis=0))
        rows.append(mean * 0 if concept.is_background else mean / mean.norm())
    return torch.stack(rows).to(encoder.device)
