"""The model card: what a hub shows of an adapter, with snippets that run as they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.formats.diffusers import FILE
from lora_scene.adapters.formats.factors import highest_ranks, part_of
from lora_scene.adapters.gallery import Sample
from lora_scene.backbones.families import FAMILIES
from lora_scene.errors import AdapterError
from lora_scene.scenes.union import prompt_for

TAGS = ("text-to-image", "diffusers", "lora", "template:sd-lora")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FAMILY_TAGS: Mapping[str, str] = {
    "sd1": "stable-diffusion",
    "sd2": "stable-diffusion",
    "sdxl": "stable-diffusion-xl",
}
FAMILY_LICENSES: Mapping[str, str] = {
    "sd1": "creativeml-openrail-m",
    "sd2": "openrail++",
    "sdxl": "openrail++",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card needs beside the adapter.

    Attributes:
        name: Its title, and the stem of the file for interfaces.
        source: Hub id or folder that the snippets load from.
        license: SPDX id; empty for the usual one of the base's family.
        samples: Pictures for the gallery, which lie in `samples/`.
    """

    name: str
    source: str
    license: str = ""
    samples: Sequence[Sample] = ()


def write_card(adapter: Adapter, facts: CardFacts) -> str:
    """Return the card: front matter that a hub validates, then Markdown.

    Args:
        adapter: The adapter.
        facts: Name, source, licence, pictures.
    """
    from huggingface_hub import ModelCardData

    info = adapter.info
    is_on_hub = HUB_ID.fullmatch(info.base_model) is not None
    widget = [
        {"text": sample.prompt or "-", "output": {"url": f"samples/{sample.path.name}"}}
        for sample in facts.samples
    ]
    data = ModelCardData(
        base_model=info.base_model if is_on_hub else None,
        base_model_relation="adapter" if is_on_hub else None,
        library_name="diffusers",
        license=facts.license or (FAMILY_LICENSES[adapter.family] if is_on_hub else "other"),
        pipeline_tag="text-to-image",
        tags=[*TAGS, FAMILY_TAGS[adapter.family]],
        instance_prompt=_example(adapter),
        widget=widget or None,
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {facts.name}",
        "<Gallery />" if widget else "",
        _handles(adapter),
        f"## diffusers\n\n```python\n{diffusers_snippet(adapter, facts.source)}```",
        f"With the package lora_scene, shorter:\n\n"
        f"```python\n{package_snippet(adapter, facts.source)}```",
        _interfaces(adapter, facts.name),
        _training(adapter),
        _limits(adapter, data.license, is_on_hub=is_on_hub),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def check_card(text: str, folder: Path) -> None:
    """Check what can be checked of a card without the hub.

    Args:
        text: The card.
        folder: Where the pictures that it names must lie.

    Raises:
        AdapterError: No front matter, a missing field, or a picture that is not there.
    """
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    except Exception as error:  # yaml's errors and the library's own
        raise AdapterError(
            "a card with broken front matter", where="README.md", got=error
        ) from error
    problems = [
        AdapterError("the card's front matter lacks a field", where="README.md", expected=field)
        for field in ("license", "tags", "library_name", "pipeline_tag")
        if not data.get(field)
    ]
    for entry in data.get("widget") or []:
        url = str((entry.get("output") or {}).get("url", ""))
        if not url.startswith("https://") and not (folder / url).is_file():
            problems.append(AdapterError("the card names a picture that is not there", where=url))
    if problems:
        raise AdapterError.collect(problems, "the card is not fit to publish")


def diffusers_snippet(adapter: Adapter, source: str) -> str:
    """Return a script that draws a picture with diffusers alone."""
    family = FAMILIES[adapter.family]
    tokens = {concept.handle: concept.stem for concept in adapter.concepts}
    is_hub = HUB_ID.fullmatch(source) is not None
    import_line, opened = _open_base(adapter)
    lines = ["import torch", import_line]
    lines += ["from huggingface_hub import snapshot_download"] if is_hub else []
    lines += ["from safetensors.torch import load_file"] if len(family.embedding_keys) > 1 else []
    lines += [
        "",
        f"folder = snapshot_download({source!r})" if is_hub else f"folder = {source!r}",
        f"pipeline = {opened}",
    ]
    if adapter.modules:
        lines.append(f'pipeline.load_lora_weights(folder, weight_name="{FILE}")')
    lines.append(f"for token, name in {tokens!r}.items():")
    if len(family.embedding_keys) == 1:
        lines.append(
            '    pipeline.load_textual_inversion(f"{folder}/embeddings/{name}.safetensors",'
            " token=token)"
        )
    else:
        lines.append('    rows = load_file(f"{folder}/embeddings/{name}.safetensors")')
        for key, encoder, tokenizer in zip(
            family.embedding_keys, family.text_encoders, family.tokenizers, strict=True
        ):
            lines += [
                "    pipeline.load_textual_inversion(",
                f'        rows["{key}"], token=token, text_encoder=pipeline.{encoder},'
                f" tokenizer=pipeline.{tokenizer}",
                "    )",
            ]
    lines += [
        'pipeline.to("cuda" if torch.cuda.is_available() else "cpu")',
        f'pipeline({_example(adapter)!r}).images[0].save("picture.png")',
    ]
    return "\n".join(lines) + "\n"


def package_snippet(adapter: Adapter, source: str) -> str:
    """Return a script that draws a picture with this package."""
    return "\n".join(
        [
            "import lora_scene",
            "from lora_scene.backbones.loading import load_pipeline",
            "",
            f"pipeline = load_pipeline({adapter.info.base_model!r})",
            f"lora_scene.load_adapter(pipeline, {source!r})",
            f'pipeline({_example(adapter)!r}).images[0].save("picture.png")',
            "",
        ]
    )


def _open_base(adapter: Adapter) -> tuple[str, str]:
    """Return the import and the expression that open the base; the embedded one has no hub id."""
    base = adapter.info.base_model
    if base == "mini":
        return "from lora_scene.backbones.loading import load_pipeline", "load_pipeline('mini')"
    if not base.endswith(".safetensors"):
        kind, opener = "DiffusionPipeline", "from_pretrained"
    else:
        is_xl = adapter.family == "sdxl"
        kind = "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline"
        opener = "from_single_file"
    return f"from diffusers import {kind}", f"{kind}.{opener}({base!r})"


def _example(adapter: Adapter) -> str:
    return prompt_for(list(adapter.handles))


def _handles(adapter: Adapter) -> str:
    rows = [
        f"| `{concept.handle}` | {_plain(concept.noun)}"
        f"{' (the background)' if concept.is_background else ''} | {concept.n_vectors} |"
        for concept in adapter.concepts
    ]
    return "\n".join(["## Handles", "", "| in prompts | is | vectors |", "|---|---|---|", *rows])


def _interfaces(adapter: Adapter, name: str) -> str:
    stems = [concept.stem for concept in adapter.concepts]
    comfy = " and ".join(f"embedding:{stem}" for stem in stems)
    plain = " and ".join(stems)
    files = ", ".join(f"`embeddings/{stem}.safetensors`" for stem in stems)
    lora = ""
    has_kohya = adapter.modules and not any(
        m.magnitude is not None for m in adapter.modules.values()
    )
    if has_kohya:
        lora = f"`{name}.safetensors` into `models/loras` (ComfyUI) or `models/Lora` (A1111); "
    return "\n".join(
        [
            "## ComfyUI, A1111, Forge, SD.Next, InvokeAI",
            "",
            f"Put {lora}{files} into the embeddings folder. An embedding is called by the name of"
            " its file: rename it to choose another word.",
            "",
            f"- ComfyUI: {'a *Load LoRA* node, and ' if has_kohya else ''}`a photo of {comfy}`",
            f"- A1111, Forge, SD.Next: `a photo of {plain}"
            f"{f' <lora:{name}:1>' if has_kohya else ''}`",
        ]
    )


def _training(adapter: Adapter) -> str:
    info = adapter.info
    parts = sorted({part_of(key) for key in adapter.modules})
    ranks = ", ".join(
        f"{part} rank {rank}" for part, rank in highest_ranks(adapter.modules).items()
    )
    rows = {
        "base": f"{_plain(info.base_model)} (UNet sha256 `{info.base_hash[:16]}`)",
        "learnt": f"{adapter.n_parameters:,} numbers; LoRA on {', '.join(parts) or 'nothing'}"
        f"{f' ({ranks})' if ranks else ''}, rows of {len(adapter.concepts)} handles",
        "steps": f"{info.steps[0]} for the rows alone, then {info.steps[1]}",
        "resolution": f"{info.resolution} px",
        "prediction": _plain(info.prediction_type),
        "recipe": _plain(info.recipe_name),
        "seed": str(info.seed),
        "photos": str(len(info.image_hashes)),
        "versions": _plain(", ".join(f"{name} {number}" for name, number in info.versions.items())),
    }
    table = [f"| {label} | {value} |" for label, value in rows.items()]
    return "\n".join(
        ["## Training", "", "| | |", "|---|---|", *table, "", "The whole recipe is in the files'"
         " metadata: `lora-scene inspect --recipe`."]
    )  # fmt: skip


def _limits(adapter: Adapter, licence: str | None, *, is_on_hub: bool) -> str:
    base = adapter.info.base_model if is_on_hub else "the base, which is on no hub"
    return "\n".join(
        [
            "## Licence and limits",
            "",
            f"Licence: {licence}. The terms of {_plain(base)} hold as well.",
            "",
            "Learnt from very few photos: their lighting is learnt with the things, poses stay near"
            " the photos', and with many handles in one prompt some go missing or mix.",
        ]
    )


def _plain(text: str) -> str:
    """Return text that Markdown and HTML show as it is."""
    return re.sub(r"([|<>`*_\[\]])", r"\\\1", text)
