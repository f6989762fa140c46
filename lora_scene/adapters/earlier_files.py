"""Files of an earlier version in an adapter's folder: what goes as new ones come, and what stays.

Two versions of an adapter, or one in two dtypes, have files of the same names; mixed, they load and
draw something that nobody trained. So an adapter's own files go as a whole. Those for interfaces
are never deleted for it: an export is refused beside them, anything else tells of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.formats import diffusers, embeddings
from lora_scene.adapters.formats.metadata import (
    FINGERPRINT,
    N_MODULES,
    SCENE_KEYS,
    STEMS,
    fingerprint,
    has_note,
)
from lora_scene.backbones.loading import DTYPES
from lora_scene.errors import AdapterError, warn_of
from lora_scene.ownership import metadata_of


@dataclass(frozen=True)
class EarlierFiles:
    """Files of ours in a folder that are not of the adapter to come.

    Attributes:
        replaced: Go as the new ones come; relative to the folder, as all of these.
        lost: Those of them for interfaces, in whose place none comes.
        left: Stay beside the new ones, and pass for files of that adapter.
    """

    replaced: tuple[str, ...]
    lost: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def told(self) -> list[str]:
        """Return what a person should know of what went."""
        went = ", ".join(self.lost)
        return [f"{went}: of an earlier version, taken away with it"] if went else []

    def refuse_left(self, folder: Path) -> None:
        """Refuse to write beside files that would stay.

        Raises:
            AdapterError: There are some.
        """
        if self.left:
            raise AdapterError(
                "files of another version or --dtype would stay beside the new ones",
                where=folder,
                got=", ".join(self.left),
                hint="all formats at once and the same --name, another folder, or move them away",
            )

    def tell(self, folder: Path, adapter: Adapter) -> None:
        """Warn of what went, and of what is left but is not this adapter in any dtype."""
        told = self.told
        fitting = {fingerprint(adapter.cast(kind)) for kind in DTYPES.values()} if self.left else ()
        stale = [f for f in self.left if metadata_of(folder / f).get(FINGERPRINT) not in fitting]
        if stale:
            told.append(
                f"{', '.join(stale)}: of another version than the adapter that lies here now;"
                " export it anew, or move them away"
            )
        for text in told:
            warn_of(folder, text)


def earlier_files(
    folder: Path,
    files: Collection[str],
    note: Mapping[str, str],
    *,
    named: Collection[str] = (),
    source: str = "",
) -> EarlierFiles:
    """Find files of other numbers, where those of an adapter are about to be written.

    Args:
        folder: The folder.
        files: The new ones, relative to it.
        note: Metadata of what they hold.
        named: Those that readers would take for files of the new ones, whatever scene they are of.
        source: Fingerprint before numbers were rounded. Its files may stay beside those for
            interfaces.
    """
    own = set(own_adapter_files(folder))
    is_whole = diffusers.FILE in files or note[N_MODULES] == "0"
    is_folder = is_whole or any(file.startswith(embeddings.FOLDER) for file in files)
    fitting = {note[FINGERPRINT]} if is_folder else {note[FINGERPRINT], source}
    others = {folder / file for file in named}
    others |= set(folder.glob("[!.]*.safetensors")) if is_folder else set()
    replaced, lost, left = [], [], []
    for path in sorted(own | others):
        found, file = metadata_of(path), path.relative_to(folder).as_posix()
        if not has_note(found) or found.get(FINGERPRINT) in fitting:
            continue
        if file in files or (is_whole and path in own):
            replaced.append(file)
            lost += [file] if STEMS in found and file not in files else []
        elif file in named or any(found.get(key) == note[key] for key in SCENE_KEYS):
            left.append(file)
    return EarlierFiles(tuple(replaced), tuple(lost), tuple(left))


def own_adapter_files(folder: Path) -> list[Path]:
    """Return the files in an adapter's folder that carry our metadata, damaged ones too."""
    paths = [folder / diffusers.FILE, *sorted((folder / embeddings.FOLDER).glob("*.safetensors"))]
    return [path for path in paths if path.name[0] != "." and has_note(metadata_of(path))]
