"""The one way to a picture: every verb, and every judge, draws by `render`.

weights, strengths -> prompts encoded -> noise -> attention steered, guides -> decoded pixels
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lora_scene.adapters.vocabulary import handle_tokens, noun_rows
from lora_scene.creating.encoding import Text, check_prompt, encode_prompts
from lora_scene.creating.names import unknown_handle
from lora_scene.creating.requests import Control, Request
from lora_scene.creating.sampling import (
    Guide,
    Start,
    Tick,
    check_size,
    decode,
    denoise,
    start_noise,
)
from lora_scene.creating.steering import steered
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.scenes.pictures import Pixels
from lora_scene.size import Size


@dataclass(frozen=True, eq=False)
class Rendering:
    """What `render` gives back.

    Attributes:
        pixels: One (H, W, 3) uint8 a request.
        inside: Of each, the mean share of a placed handle's attention within its box.
    """

    pixels: list[Pixels]
    inside: list[dict[str, float]]


def render(
    studio: Studio,
    requests: Sequence[Request],
    *,
    text: Text | None = None,
    start: Start | None = None,
    guides: Sequence[Guide] = (),
    tick: Tick | None = None,
) -> Rendering:
    """Draw requests that share all but prompts and seeds, as one batch.

    Args:
        studio: The base and its adapters.
        requests: See `checked`.
        text: Their prompts, encoded; None encodes them with the requests' strengths.
        start: Where sampling begins; None starts at the noise of the requests' seeds.
        guides: Act around every step, after those of the requests' places.
        tick: Called after every step.

    Raises:
        CreationError: A prompt is too long or names an unknown handle; the base gives no numbers.
    """
    first = requests[0]
    control = Control() if first.is_base else first.control
    prompts = [prompt_of(studio, request) for request in requests]
    text = text or encode(studio, requests)
    seeds = [request.seed for request in requests]
    start = start or start_noise(studio, seeds, check_size(studio, first.size))
    with (
        weighed(studio, first),
        steered(studio, prompts, control, text=text, latents=Size.of(start.eps.shape)) as places,
    ):
        acting = [*places, *guides]
        z = denoise(studio, text, start, sampling=first.sampling, guides=acting, tick=tick)
    inside = places[0].told() if places else [{} for _ in requests]
    return Rendering(decode(studio, z), inside)


def checked(studio: Studio, request: Request, *, has_start: bool = False) -> Request:
    """Return a request with handles, size and guidance filled in, looked at before it is drawn.

    Args:
        studio: The base and its adapters.
        request: What is asked for.
        has_start: Whether there is a picture to start from, of which a strength below 1 keeps
            something.

    Raises:
        CreationError: A prompt is too long or names an unknown handle, the prompt does not name a
            handle whose attention is steered, a weight is of no adapter that is loaded, the base
            cannot draw at the size, or a strength below 1 has nothing to keep.
    """
    request = request.resolved(studio)
    _check_weights(studio, request)
    if request.sampling.strength < 1 and not has_start:
        raise CreationError(
            "a strength below 1 keeps something of a picture, and there is none to start from",
            where=request.prompt,
            expected="1",
            got=request.sampling.strength,
        )
    for prompt in (prompt_of(studio, request), negative_of(studio, request)):
        check_prompt(studio, prompt)
    sampling = request.sampling
    if sampling.guidance is None:
        sampling = replace(sampling, guidance=studio.backbone.usual_guidance)
    size = check_size(studio, request.size)
    return replace(request, size=size, sampling=sampling)


def encode(studio: Studio, requests: Sequence[Request]) -> Text:
    """Encode requests of one weight and control, their adapters weighed and strengths set.

    Raises:
        CreationError: A prompt is too long, or a handle is unknown.
    """
    strengths = {} if requests[0].is_base else dict(requests[0].control.strengths)
    with weighed(studio, requests[0]), strengthened(studio, strengths):
        prompts = [prompt_of(studio, request) for request in requests]
        negatives = [negative_of(studio, request) for request in requests]
        return encode_prompts(studio, prompts, negatives)


def prompt_of(studio: Studio, request: Request) -> str:
    """Return the prompt that the text encoder reads."""
    return studio.without_handles(request.prompt) if request.is_base else request.prompt


def negative_of(studio: Studio, request: Request) -> str:
    """Return the negative prompt that the text encoder reads."""
    return studio.without_handles(request.negative) if request.is_base else request.negative


def weighed(studio: Studio, request: Request) -> contextlib.AbstractContextManager[None]:
    """Scale the LoRA updates as a request asks, for a while."""
    weight = request.weight
    return studio.weighted(dict(weight) if isinstance(weight, tuple) else weight)


@contextlib.contextmanager
def strengthened(studio: Studio, strengths: Mapping[str, float]) -> Iterator[None]:
    """Say how much of its learnt identity a handle carries, then put its rows back bit for bit.

    A handle's rows move on the line through the base's own rows of its class noun:

        row(s) = noun + s (row - noun)

    0 draws any bear, 1 the learnt bear, values between a resemblance, values above 1 a caricature.
    The LoRA update is shared by all concepts and is scaled by the adapter's weight instead.

    Args:
        studio: The base and its adapters.
        strengths: Handle to strength; handles that are not named keep 1.

    Raises:
        CreationError: No adapter knows a handle.
    """
    concepts = {concept.handle: concept for concept in studio.concepts}
    for handle in strengths:
        if handle not in concepts:
            raise unknown_handle(handle, studio.nouns)
    kept: list[tuple[Tensor, list[int], Tensor]] = []
    texts = list(zip(studio.backbone.tokenizers, studio.backbone.text_encoders, strict=True))
    try:
        for handle, strength in strengths.items():
            for tokenizer, encoder in texts:
                matrix = encoder.get_input_embeddings().weight
                concept = concepts[handle]
                tokens = list(handle_tokens(handle, concept.n_vectors))
                ids = tokenizer.convert_tokens_to_ids(tokens)
                learnt = matrix.detach()[ids].clone()
                kept.append((matrix, ids, learnt))
                noun = noun_rows(tokenizer, matrix, concept.noun, concept.n_vectors)
                noun = noun.to(learnt.device)
                moved = noun + strength * (learnt.float() - noun)
                if not bool(moved.isfinite().all()):
                    raise CreationError("a strength that is too large", where=handle, got=strength)
                matrix.data[ids] = moved.to(learnt)
        yield
    finally:
        for matrix, ids, learnt in kept:
            matrix.data[ids] = learnt


def _check_weights(studio: Studio, request: Request) -> None:
    known = [one.name for one in studio.adapters]
    named = dict(request.weight) if isinstance(request.weight, tuple) else {}
    unknown = sorted(named.keys() - set(known))
    if unknown:
        raise CreationError(
            "no such adapter is loaded",
            where=", ".join(unknown),
            expected=", ".join(known) or "none is loaded",
        )
