"""Adapters to a model hub and back, over huggingface_hub.

The token comes from the usual login (`hf auth login` or `HF_TOKEN`); it is never printed or kept.
"""

from __future__ import annotations

from pathlib import Path

from lora_scene.adapters.formats.diffusers import FILE
from lora_scene.adapters.formats.embeddings import FOLDER
from lora_scene.errors import HubError

ADAPTER_PATTERNS = (FILE, f"{FOLDER}/*.safetensors")


def fetch_adapter(repo_id: str, *, revision: str | None = None) -> Path:
    """Download an adapter's weight files into the hub's cache, or find them there.

    Args:
        repo_id: Such as `user/name`.
        revision: Branch, tag or commit; the default branch when None.

    Returns:
        The folder that holds them.

    Raises:
        HubError: The hub does not have it, refuses it, or does not answer.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=list(ADAPTER_PATTERNS))
        )
    except Exception as error:
        raise HubError("cannot be downloaded", where=repo_id, got=f"{error}") from error
