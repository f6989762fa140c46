"""What a card says, held against what is published with it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.model_card import strange_facts
from lora_scene.documents import read_text
from lora_scene.errors import AdapterError

# An embedding's file; a name with spaces ends where its span of code does
NAMED = re.compile(
    r"embeddings/[\w-]+\.safetensors|(?<=`)embeddings/[^`{}<>*\n]+\.safetensors(?=`)"
)
SOURCE = re.compile(r"(?:snapshot_download\(|load_adapter\(\w+, |folder = )(['\"])(.*?)\1")


def check_card(text: str, folder: Path) -> None:
    """Check what can be checked of a card without the hub.

    Args:
        text: The card.
        folder: Where the pictures that it names must lie.

    Raises:
        AdapterError: No front matter, a missing field, or a picture that is not there.
    """
    data = _front_matter(text)
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


def refuse_absent_files(text: str, folder: Path) -> None:
    """Refuse a card that sends its readers to embeddings which are not published with it.

    Raises:
        AdapterError: A name in it is not there.
    """
    named = set(NAMED.findall(text))
    absent = sorted(name for name in named if not (folder / name).is_file())
    if absent:
        there = sorted(path.name for path in (folder / "embeddings").glob("[!.]*.safetensors"))
        raise AdapterError(
            "the card names embeddings that are not there",
            where="README.md",
            expected=", ".join(there),
            got=", ".join(absent),
            hint="the same --name for `card` and `push`, or write it anew: lora-scene card",
        )


def refuse_other_source(card: str, repo_id: str) -> None:
    """Refuse a card whose snippets load from elsewhere: another repository, or a folder here."""
    others = sorted({match[2] for match in SOURCE.finditer(card)} - {repo_id})
    if others:
        raise AdapterError(
            "the card's snippets load another adapter",
            where="README.md",
            expected=repo_id,
            got=", ".join(others),
            hint=f"correct it, or write it anew: lora-scene card DIR --repo {repo_id}",
        )


def licence_of(folder: Path) -> str:
    """Return the licence that the card in an adapter's folder states; empty where none does."""
    with suppress(AdapterError):
        text = read_text(folder / "README.md", AdapterError)
        return str(_front_matter(text).get("license") or "")
    return ""


def refuse_other_licence(folder: Path, licence: str) -> None:
    """Refuse a licence that the card in an adapter's folder contradicts.

    Raises:
        AdapterError: It states another one.
    """
    told = licence_of(folder)
    if licence and told and told.lower() != licence.lower():
        raise AdapterError(
            "the card states another licence",
            where=folder / "README.md",
            expected=licence,
            got=told,
            hint="correct it, write it anew with `lora-scene card --license`, or leave the option",
        )


def refuse_other_facts(card: str, adapter: Adapter, repo_id: str) -> None:
    """Refuse an edited card that was written of another adapter.

    Raises:
        AdapterError: Its tables tell what is not so.
    """
    if strange := strange_facts(card, adapter):
        raise AdapterError(
            "the card tells of another adapter",
            where="README.md",
            got="; ".join(strange),
            hint=f"correct it, or give it up for a new one: lora-scene card DIR --repo {repo_id}"
            " --force",
        )


def _front_matter(text: str) -> dict[str, Any]:
    from huggingface_hub import ModelCard

    try:
        return dict(ModelCard(text, ignore_metadata_errors=False).data.to_dict())
    except Exception as error:  # yaml's errors and the library's own
        raise AdapterError(
            "a card with broken front matter", where="README.md", got=error
        ) from error
