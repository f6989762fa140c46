"""Libraries that only some of the work needs: had by name, or refused in one kind of sentence."""

from __future__ import annotations

import importlib
from types import ModuleType

from lora_scene.errors import LoraSceneError

PACKAGES = {"pillow_heif": "pillow-heif"}  # where they are called otherwise than what they hold


def optional(
    name: str, *, error: type[LoraSceneError], where: object, instead: str = ""
) -> ModuleType:
    """Import a library that is not always installed.

    Args:
        name: Its module, such as `scipy` or `torchmetrics.image.fid`.
        error: What is raised where it cannot be had.
        where: What needs it.
        instead: What to do without it.

    Raises:
        LoraSceneError: It is not installed, or does not load.
    """
    whole = name.partition(".")[0]
    package = PACKAGES.get(whole, whole)
    choice = f", or {instead}" if instead else ""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as absent:
        if absent.name not in (name, whole):
            raise _broken(package, absent, error, where, choice) from absent
        raise error(
            f"{package} is not installed", where=where, hint=f"pip install {package}{choice}"
        ) from absent
    except (ImportError, OSError, RuntimeError) as broken:
        raise _broken(package, broken, error, where, choice) from broken


def _broken(
    package: str, why: Exception, error: type[LoraSceneError], where: object, choice: str
) -> LoraSceneError:
    return error(
        f"{package} does not load",
        where=where,
        got=why,
        hint=f"pip install --upgrade {package}{choice}",
    )
