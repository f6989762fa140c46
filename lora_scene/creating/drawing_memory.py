"""What drawing a picture takes of a device: the loop that draws, on the meta device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from lora_scene.backbones.architectures import Architecture
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import DTYPES
from lora_scene.creating.encoding import Text
from lora_scene.creating.requests import Control, Place, Sampling
from lora_scene.creating.sampling import Start, denoise
from lora_scene.creating.steering import PlaceGuide, attention_bias
from lora_scene.creating.studio import Studio
from lora_scene.creating.token_attention import MapReader, biased
from lora_scene.learning.ledger import Ledger, kernels_of_gpus
from lora_scene.learning.simulation import SLACK, WORKSPACE, PhaseEstimate, Simulation
from lora_scene.recipe import Recipe
from lora_scene.size import Size

HALF = (0.0, 0.0, 0.5, 1.0)


def estimate_drawings(
    architecture: Architecture, recipe: Recipe, dtype: str, **asked: Any
) -> list[PhaseEstimate]:
    """Estimate a picture drawn plainly, and one with every concept led to a place.

    Args:
        architecture: Of the base.
        recipe: Its storage and resolution count.
        dtype: Of the base's weights, a key of `DTYPES`.
        asked: `n_concepts` and `photos`, as `Simulation` takes them.
    """
    base_alone = Simulation(architecture, recipe, DTYPES[dtype], **asked)
    return [estimate_drawing(base_alone, n_places=n) for n in (0, asked["n_concepts"])]


def estimate_drawing(simulation: Simulation, *, n_places: int = 0) -> PhaseEstimate:
    """Estimate the peak of drawing one picture, classifier-free guidance included.

    All parts of the base lie on the device, in the recipe's dtype and storage; the adapter's own
    weights are left out.

    Args:
        simulation: The base, which needs no other.
        n_places: Handles led to a place, as `--at` asks; 0 draws plainly.
    """
    decoded = simulation.samples().parts
    parts = {name: decoded[name] for name in ("UNet", "text encoders", "VAE")}
    drawn = drawing_bytes(simulation.backbone, simulation.size, n_places=n_places)
    moving = max(drawn, decoded["VAE activations"])
    slack = int(SLACK * moving) + WORKSPACE
    name = "draw --at" if n_places else "draw"
    return PhaseEstimate(name, {**parts, "activations": moving, "slack (assumed)": slack})


def drawing_bytes(backbone: Backbone, size: Size, *, n_places: int) -> int:
    """Return the peak of one step above what lies there before it, a move to places included."""
    backbone.unet.disable_gradient_checkpointing()
    cells, ledger = size.cells(backbone.vae_factor), Ledger("meta")
    ledger.hold([*backbone.unet.parameters(), *backbone.unet.buffers()])
    with torch.no_grad():
        empty = backbone.encode_tokens(backbone.tokenize([""]))
    text, held = Text(empty, empty), ledger.live
    start = Start(torch.empty(1, backbone.latent_channels, *cells.rows_columns), ())
    with led(backbone, text, cells, n_places) as guides, kernels_of_gpus(), ledger:
        studio = Studio(backbone, "", ())
        denoise(studio, text, start, sampling=Sampling(1, 7.5, "ddim"), guides=guides)
    return ledger.peak - held


@contextlib.contextmanager
def led(backbone: Backbone, text: Text, latents: Size, n: int) -> Iterator[list[PlaceGuide]]:
    """Steer as `steered` does, n handles into half of the picture: tokens stand for handles."""
    if not n:
        yield []
        return
    control = Control(tuple(Place(f"<thing{k}>", HALF) for k in range(n)))
    columns, n_tokens = [[[k] for k in range(n)]], text.positive.states.shape[1]
    reader = MapReader(backbone.unet, columns, n_tokens=n_tokens, latents=latents)
    bias = biased(
        backbone.unet, lambda grid: attention_bias(control, columns, n_tokens, grid), latents
    )
    with bias, reader.attached():
        yield [PlaceGuide(Studio(backbone, "", ()), text, control.places, reader, n_moves=1)]
