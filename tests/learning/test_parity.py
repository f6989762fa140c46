"""The fast path against the published formulas, restated slowly in `literal.py`."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from lora_scene.learning.objective import LOSSES, PriorBatch
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.scene import Concept, Photo, Scene
from tests import tiny
from tests.learning import literal, made

MAP_LEVELS = {  # at 64 px the coarsest cross-attention outside the mid block, 4x4 cells
    "sd1": ("down_blocks.2", "up_blocks.1"),
    "sd2": ("down_blocks.2", "up_blocks.1"),
    "sdxl": ("down_blocks.2", "up_blocks.0"),
}
SUBSETS = ((1,), (2, 0), (0, 1, 2))  # of three sizes in one batch
TIMES = (40, 501, 870)
PRIOR_PROMPTS = ("a photo of a bear", "a photo of a dog on grass")

FORMS = {
    "published": (literal.Weights(attention=0.5, prior=1.0), ["prior.weight=1"]),
    "extended": (
        literal.Weights(
            attention=0.5, pairwise=0.25, outside=0.1, by_area=True, mean_concepts=True
        ),
        [
            "phase2.pairwise_weight=0.25",
            "masked_loss.outside_weight=0.1",
            "masked_loss.normalize=area",
            "attention_loss.reduction=mean",
        ],
    ),
}


SHAPES = {  # a photo, what it is learnt at, and what SDXL is told of it
    "3:2": ((96, 64), (96, 64), (64, 96, 0, 0, 64, 96)),
    "9:16": ((72, 128), (64, 128), (128, 72, 0, 4, 128, 64)),
}


@functools.cache
def shaped(shape):
    """Return a scene of three things in their photo's middle, of a shape; see `SHAPES`."""
    width, height = SHAPES[shape][0]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    masks = np.zeros((3, height, width), dtype=np.float32)
    masks[0, 4:40, 8:36], masks[1, 30:60, 30:64] = 1, 1
    masks[2] = 1 - masks[:2].max(axis=0)
    concepts = (
        Concept("<bear>", "bear"),
        Concept("<bowl>", "red bowl"),
        Concept("<ground>", "grass", is_background=True),
    )
    return Scene(concepts, (Photo(pixels, masks, "img.png"),), shape)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prior_tensors(ready):
    shape = (2, *ready.variants[0].moments.mean.shape)
    return noise(*shape, seed=20), noise(*shape, seed=21), torch.tensor([300, 33])


@functools.cache
def bench(family, scene, form, checkpointing, canvas=None):
    settings = made.recipe(
        "unused",
        "phase2.attention_weight=0.5",
        f"base.gradient_checkpointing={str(checkpointing).lower()}",
        *FORMS[form][1],
    )
    return made.bench(tiny.pipeline(family), scene, settings, canvas=canvas)


@functools.cache
def literal_result(family, scene, form, canvas=None, told=()):
    """Return the literal terms, and gradients by name; `told` is what SDXL is told of sizes."""
    ready = bench(family, scene, form, False, canvas)
    pipe = tiny.pipeline(family)
    for part in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if part is not None:
            part.requires_grad_(False)
    handles = [concept.handle for concept in scene.concepts]
    matrices = literal.add_handles(
        pipe, handles, [table.detach().clone() for table in ready.table.tables]
    )
    lora = {
        name: (down.detach().clone().requires_grad_(True), up.detach().clone().requires_grad_(True))
        for name, (down, up) in made.factors(ready.backbone.unet).items()
    }
    weights = FORMS[form][0]
    prior = ()
    if weights.prior:
        z, eps, t = prior_tensors(ready)
        whole = (*told[4:], 0, 0, *told[4:])
        prior = [
            literal.Drawn(z[i], eps[i], int(t[i]), prompt, (), whole if told else ())
            for i, prompt in enumerate(PRIOR_PROMPTS)
        ]
    samples = [ready.sample(s, seed=i, t=TIMES[i]) for i, s in enumerate(SUBSETS)]
    terms = literal.loss(
        pipe,
        [literal.Drawn(s.z, s.eps, s.t, s.prompt, s.subset, told) for s in samples],
        handles=handles,
        masks=torch.from_numpy(learnt(scene, told).masks),
        map_levels=MAP_LEVELS[family],
        lora=lora,
        weights=weights,
        prior=prior,
    )
    terms["total"].backward()
    gradients = {f"rows {i}": m.grad[-len(handles) :] for i, m in enumerate(matrices)}
    for name, (down, up) in lora.items():
        gradients[f"{name} down"], gradients[f"{name} up"] = down.grad, up.grad
    return {name: float(value.detach()) for name, value in terms.items()}, gradients


def learnt(scene, told):
    """Return the part of the photo that is learnt; it is not resized in these tests."""
    if not told:
        return scene.photos[0]
    top, left, height, width = told[2:]
    rows, columns = slice(top, top + height), slice(left, left + width)
    photo = scene.photos[0]
    return Photo(photo.pixels[rows, columns], photo.masks[:, rows, columns], "")


def fast_result(family, scene, form, checkpointing, canvas=None):
    ready = bench(family, scene, form, checkpointing, canvas)
    samples = [ready.sample(s, seed=i, t=TIMES[i]) for i, s in enumerate(SUBSETS)]
    prior = None
    with ready.objective() as objective:
        if FORMS[form][0].prior:
            ids = ready.backbone.tokenize(list(PRIOR_PROMPTS))
            text = ready.backbone.encode_tokens(ids)
            prior = PriorBatch(*prior_tensors(ready), text)
        terms = objective(samples, prior)
        terms.total.backward()
    gradients = {f"rows {i}": table.grad for i, table in enumerate(ready.table.tables)}
    for name, (down, up) in made.factors(ready.backbone.unet).items():
        gradients[f"{name} down"], gradients[f"{name} up"] = down.grad, up.grad
    return dict(zip(LOSSES, terms.stacked().tolist(), strict=True)), gradients


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_fast_path_has_the_loss_and_gradients_of_the_published_formulas(
    family, form, checkpointing, scene
):
    literally = literal_result(family, scene, form)
    assert_parity(fast_result(family, scene, form, checkpointing), literally)


@pytest.mark.parametrize(("shape", "form"), [("3:2", "published"), ("9:16", "extended")])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_photo_of_any_shape_has_them_too(family, shape, form):
    _, size, told = SHAPES[shape]
    canvas = Canvas(88, 32, 4, 16, "photo")
    scene = shaped(shape)
    assert canvas.size_for(scene.photos[0].size) == size
    literally = literal_result(family, scene, form, canvas, told)
    assert_parity(fast_result(family, scene, form, False, canvas), literally)


def assert_parity(fast, literally):
    (fast_terms, fast_gradients), (terms, gradients) = fast, literally
    assert fast_terms == pytest.approx(terms, rel=1e-5)
    assert fast_gradients.keys() == gradients.keys()
    for name, expected in gradients.items():
        scale = expected.abs().max()
        assert scale > 0, f"{name}: a zero gradient tests nothing"
        difference = (fast_gradients[name] - expected).abs().max()
        assert difference <= 1e-5 * max(scale, 1e-2), (name, float(difference), float(scale))
