"""Files of an earlier export, which go as a whole, or stop the next one.

Two versions of an adapter, or one in two dtypes, have files of the same names; mixed, they load and
draw something that nobody trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.folder import own_adapter_files
from lora_scene.adapters.formats import diffusers, embeddings
from lora_scene.adapters.formats.metadata import FINGERPRINT, SCENE_KEYS, has_note, write_note
from lora_scene.errors import AdapterError
from lora_scene.ownership import metadata_of


def replaced_files(
    out: Path, files: Sequence[str], adapter: Adapter, name: str, *, source: str
) -> list[str]:
    """Return what goes as new files come: files of other numbers that these replace.

    Args:
        out: The folder.
        files: The new ones, relative to it.
        adapter: What they hold.
        name: Of those for interfaces.
        source: Fingerprint before numbers were rounded. Its files may stay beside those for
            interfaces.

    Raises:
        AdapterError: Others would stay, as if they belonged with the new ones.
    """
    note = write_note(adapter)
    own = set(own_adapter_files(out))
    is_whole = diffusers.FILE in files or not adapter.modules
    is_folder = is_whole or any(file.startswith(embeddings.FOLDER) for file in files)
    fitting = {note[FINGERPRINT]} if is_folder else {note[FINGERPRINT], source}
    stems = [embeddings.embedding_path(concept.stem) for concept in adapter.concepts]
    named = {out / file for file in (f"{name}.safetensors", f"{name}_bundle.safetensors", *stems)}
    replaced, left = [], []
    for path in sorted(own | named | set(out.glob("[!.]*.safetensors") if is_folder else ())):
        found, file = metadata_of(path), path.relative_to(out).as_posix()
        if not has_note(found) or found.get(FINGERPRINT) in fitting:
            continue
        if file in files or (is_whole and path in own):
            replaced.append(file)
        elif path in named or all(found.get(key) == note[key] for key in SCENE_KEYS):
            left.append(file)
    if left:
        raise AdapterError(
            "files of another version or --dtype would stay beside the new ones",
            where=out,
            got=", ".join(left),
            hint="all formats at once and the same --name, another folder, or move them away",
        )
    return [*replaced, f"{name}.preview.png"] if f"{name}.safetensors" in replaced else replaced
