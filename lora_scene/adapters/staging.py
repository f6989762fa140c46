"""What is published of an adapter, put together in a folder: all layouts, pictures, the card."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lora_scene.adapters.card_checks import (
    check_card,
    licence_of,
    refuse_absent_files,
    refuse_other_facts,
    refuse_other_licence,
    refuse_other_source,
)
from lora_scene.adapters.exports import export_adapter
from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.embeddings import FOLDER
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.gallery import FOLDER as SAMPLES
from lora_scene.adapters.gallery import PROMPT, last_samples, write_sheet
from lora_scene.adapters.model_card import CardFacts, write_card
from lora_scene.documents import read_text
from lora_scene.errors import AdapterError
from lora_scene.ownership import is_ours
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.pictures import open_image


def check_repository(repo_id: str) -> None:
    """Check that a name is one of a repository on a hub, and says whose.

    Raises:
        AdapterError: It is not, or does not: readers would not find what is published.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    reason = "it does not say whose" if "/" not in repo_id else ""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        reason = str(error)
    if reason:
        got = f"{repo_id!r:.60}: {reason}"
        raise AdapterError("no name of a repository", expected="USER/NAME", got=got)


def stage_adapter(folder: Path, stage: Path, *, title: Title, repo_id: str, dtype: str) -> None:
    """Put together what is to be published: all layouts, pictures, and the card.

    Args:
        folder: The adapter's folder. A README.md in it that was edited is taken as it is; another
            is written anew. Symbolic links are not followed: what they lead to was not meant to be
            published.
        stage: An empty folder.
        title: Name of the files, author, licence.
        repo_id: Where it will be.
        dtype: Of the files.

    Raises:
        AdapterError: The folder holds no sound adapter or a symbolic link, its card is not fit to
            publish, or `repo_id` is none.
    """
    check_repository(repo_id)
    parts = (folder / FOLDER, folder / SAMPLES)
    inner = [path for part in parts for path in part.glob("*")]
    refuse_linked([folder / "README.md", *folder.glob("*.safetensors"), *parts, *inner])
    refuse_other_licence(folder, title.license)
    adapter = read_adapter(folder)
    samples = last_samples(folder, adapter)
    export_adapter(adapter, stage, title=title, dtype=dtype, samples=samples)
    (stage / SAMPLES).mkdir()
    for sample in samples:
        # the pixels alone: nothing that a file may carry
        pixels = np.asarray(open_image(sample.path)[0].convert("RGB"))
        place = stage / SAMPLES / sample.path.name
        write_picture(place, Image.fromarray(pixels), {PROMPT: sample.prompt})
    write_sheet(stage, delivered=sum(adapter.info.steps))
    own_card = folder / "README.md"
    if own_card.is_file() and not is_ours(own_card):
        text = read_text(own_card, AdapterError).replace("\r\n", "\n")
        refuse_other_facts(text, adapter, repo_id)
    else:
        licence = title.license or licence_of(folder)
        text = write_card(adapter, CardFacts(title.name, repo_id, licence, samples))
    check_card(text, stage)
    refuse_other_source(text, repo_id)
    refuse_absent_files(text, stage)
    (stage / "README.md").write_text(text, encoding="utf-8")


def staged_files(stage: Path) -> dict[str, int]:
    """Return what would be published: path to size, bytes."""
    return {
        path.relative_to(stage).as_posix(): path.stat().st_size
        for path in sorted(stage.rglob("*"))
        if path.is_file()
    }


def refuse_linked(paths: Iterable[Path]) -> None:
    """Refuse symbolic links: what they lead to was not meant to be published.

    Raises:
        AdapterError: One of the paths is one.
    """
    for path in paths:
        if path.is_symlink():
            raise AdapterError(
                "a symbolic link is never published", where=path, hint="put a copy in its place"
            )
