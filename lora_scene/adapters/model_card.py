"""The model card: what a hub shows of an adapter, with snippets that run as they stand.

Nouns, names and recipes may come from strangers' files. The template escapes whatever is put into
it, so that none of them becomes a link, a picture, HTML, a table's cell or front matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jinja2

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.exports import check_name, for_interfaces
from lora_scene.adapters.formats.diffusers import FILE
from lora_scene.adapters.formats.factors import highest_ranks, part_of
from lora_scene.adapters.formats.metadata import public_info
from lora_scene.adapters.gallery import SamplePicture
from lora_scene.backbones.families import FAMILIES
from lora_scene.scenes.union import prompt_for

TAGS = ("text-to-image", "diffusers", "lora", "template:sd-lora")
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
TEMPLATE = "card.md.jinja"

# Rows of its tables
_FACT = re.compile(r"^\|\s*([a-z][a-z ]*?)\s*\|\s*(.*?)\s*\|\s*$", re.MULTILINE)
_HANDLE = re.compile(r"^\|\s*`(<[^`|]+>)`\s*\|", re.MULTILINE)


@dataclass(frozen=True)
class CardFacts:
    """What a card needs beside the adapter.

    Attributes:
        name: Its title, and the stem of the file for interfaces.
        repo: Hub id that the snippets load from; empty for `folder`.
        license: SPDX id; empty for the usual one of the base's family.
        samples: Pictures for the gallery, which lie in `samples/`.
        folder: The adapter's folder, where it is on no hub.
        has_sheet: Whether the samples' sheet lies beside them.
    """

    name: str
    repo: str = ""
    license: str = ""
    samples: Sequence[SamplePicture] = ()
    folder: str = "adapter"
    has_sheet: bool = True


def write_card(adapter: Adapter, facts: CardFacts) -> str:
    """Return the card: front matter that a hub validates, then Markdown.

    Args:
        adapter: The adapter; as a repository holds it, its files are named for interfaces.
        facts: Name, source, licence, pictures.

    Raises:
        AdapterError: See `check_name`.
    """
    check_name(facts.name)
    info = public_info(adapter.info)
    named = for_interfaces(replace(adapter, info=info), facts.name)
    adapter = named if facts.repo else replace(adapter, info=info)
    licence = facts.license or "other"
    if not facts.license and _is_on_hub(adapter):
        licence = FAMILY_LICENSES[adapter.family]
    stems = [concept.stem for concept in named.concepts]
    lora = f" <lora:{facts.name}:1>" if adapter.modules else ""
    template = _environment().get_template(TEMPLATE)
    return template.render(
        front_matter=Raw(_front_matter(adapter, facts, licence)),
        name=facts.name,
        repo=facts.repo,
        gallery=bool(facts.samples),
        sheet=facts.has_sheet,
        concepts=adapter.concepts,
        plain_snippet=diffusers_snippet(adapter, facts),
        own_snippet=package_snippet(adapter, facts),
        has_kohya=bool(adapter.modules),
        files=Raw(", ".join(_code(f"embeddings/{stem}.safetensors") for stem in stems)),
        comfy=f"a photo of {' and '.join(f'embedding:{stem}' for stem in stems)}",
        a1111=f"a photo of {' and '.join(stems)}{lora}",
        invoke=f"a photo of {' and '.join(f'<{stem}>' for stem in stems)}",
        training=_training(adapter),
        licence=licence,
        base=info.base_model,
        on_hub=_is_on_hub(adapter),
    )


def strange_facts(card: str, adapter: Adapter) -> list[str]:
    """Return what the tables of a card tell that is not so of an adapter; other rows say nothing.

    Args:
        card: One that `write_card` wrote, edited since.
        adapter: The adapter.
    """
    training = _training(replace(adapter, info=public_info(adapter.info)))
    facts = {label: _bare(_plain(value)) for label, value in training.items()}
    told = {match[1]: _bare(match[2]) for match in _FACT.finditer(card)}
    strange = [f"{key} {told[key]}" for key, fact in facts.items() if told.get(key, fact) != fact]
    return [h for h in _HANDLE.findall(card) if h not in adapter.handles] + strange


def diffusers_snippet(adapter: Adapter, facts: CardFacts) -> str:
    """Return a script that draws a picture with diffusers alone."""
    family = FAMILIES[adapter.family]
    # Stock pipelines expand a handle of several vectors in lower case alone.
    tokens = {concept.handle.lower(): concept.stem for concept in adapter.concepts}
    import_line, opened = _open_base(adapter)
    lines = ["import torch", import_line]
    lines += ["from huggingface_hub import snapshot_download"] if facts.repo else []
    lines += ["from safetensors.torch import load_file"] if len(family.embedding_keys) > 1 else []
    place = f"snapshot_download({facts.repo!r})" if facts.repo else f"{facts.folder!r}"
    lines += ["", f"folder = {place}", f"pipeline = {opened}"]
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


def package_snippet(adapter: Adapter, facts: CardFacts) -> str:
    """Return a script that draws a picture with this package."""
    return f"""import lora_scene
from lora_scene.backbones.loading import load_pipeline

pipeline = load_pipeline({adapter.info.base_model!r}){_own_copy(adapter)}
lora_scene.load_adapter(pipeline, {facts.repo or facts.folder!r})
pipeline({_example(adapter)!r}).images[0].save("picture.png")
"""


class Raw(str):
    """Text that is Markdown already."""

    __slots__ = ()


def _environment() -> jinja2.Environment:
    """Return an environment that escapes every expression, but for `Raw` text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lora_scene.adapters", ""),
        finalize=lambda value: value if isinstance(value, Raw) else _plain(value),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "python": _python}
    return environment


def _plain(value: object) -> str:
    """Return text that Markdown and HTML show as it is, in one line."""
    text = "" if value is None else " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]{}<>|~&!$@#]|(?<=http):|(?<=https):|(?<=www)\.)", r"\\\1", text)


def _bare(text: str) -> str:
    """Return a cell's text however an editor spaced and escaped it."""
    return " ".join(text.replace("\\", "").split())


def _code(value: object) -> Raw:
    """Return text as a span of code, one line, whatever backticks it holds."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return Raw(f"{fence}{pad}{text}{pad}{fence}")


def _python(code: str) -> Raw:
    """Return a block of code that nothing in it ends."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return Raw(f"{fence}python\n{code}{fence}")


def _is_on_hub(adapter: Adapter) -> bool:
    return "/" in adapter.info.base_model


def _front_matter(adapter: Adapter, facts: CardFacts, licence: str) -> str:
    """Return the YAML in front of a card, which the hub reads."""
    from huggingface_hub import ModelCardData

    gallery = [
        {"text": sample.prompt or "-", "output": {"url": f"samples/{sample.path.name}"}}
        for sample in facts.samples
    ]
    data = ModelCardData(
        base_model=adapter.info.base_model if _is_on_hub(adapter) else None,
        base_model_relation="adapter" if _is_on_hub(adapter) else None,
        library_name="diffusers",
        license=licence,
        pipeline_tag="text-to-image",
        tags=[*TAGS, FAMILY_TAGS[adapter.family]],
        instance_prompt=_example(adapter),
        widget=gallery or None,
    )
    return str(data.to_yaml()).strip()


def _own_copy(adapter: Adapter) -> str:
    base = adapter.info.base_model
    return "" if base == "mini" or _is_on_hub(adapter) else "  # the path of your copy of this base"


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
    return f"from diffusers import {kind}", f"{kind}.{opener}({base!r}){_own_copy(adapter)}"


def _example(adapter: Adapter) -> str:
    return prompt_for([handle.lower() for handle in adapter.handles])


def _training(adapter: Adapter) -> dict[str, object]:
    info = adapter.info
    parts = ", ".join(sorted({part_of(key) for key in adapter.modules})) or "nothing"
    highest = highest_ranks(adapter.modules)
    ranks = ", ".join(f"{part} rank {rank}" for part, rank in highest.items())
    steps = {"steps": f"{info.steps[0]} for the rows alone, then {info.steps[1]}"}
    return {
        "base": f"{info.base_model} (UNet sha256 {info.base_hash[:16]})",
        "learnt": f"{adapter.n_parameters:,} numbers; LoRA on {parts}"
        f"{f' ({ranks})' if ranks else ''}, rows of {len(adapter.concepts)} handles",
        **({"merged of": "; ".join(info.merged)} if info.merged else steps | {"seed": info.seed}),
        **{k: v for k, v in (("begun from", info.begun), ("taken", info.taken)) if v},
        "resolution": info.told_sizes,
        "prediction": info.prediction_type,
        "recipe": info.recipe_name,
        "photos": len(info.image_hashes),
        "versions": ", ".join(f"{name} {number}" for name, number in info.versions.items()),
    }
