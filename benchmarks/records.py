"""What every measurement is written with: device, versions, commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from lora_scene.learning.outcome import installed_versions

COMMIT = "LORA_SCENE_COMMIT"  # names the commit where the files lie without their repository


def circumstances(device: str) -> dict[str, Any]:
    """Return device, threads, versions and commit."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    commit = (
        os.environ.get(COMMIT)
        or subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    )
    return {
        "device": f"{device}: {name}",
        "threads": torch.get_num_threads(),
        "versions": installed_versions(),
        "commit": commit,
    }


def write(record: dict[str, Any], out: Path | None) -> None:
    """Write a record as one JSON line, to a file or to stdout."""
    line = json.dumps(record)
    if out is None:
        print(line)
        return
    print(line, file=sys.stderr)
    with out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
