"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_scene.learning.beginning import Beginning
from lora_scene.learning.events import Listener
from lora_scene.learning.interruption import Interruption
from lora_scene.recipe import Recipe
from lora_scene.scenes.scene import Scene


@dataclass(frozen=True)
class Job:
    """What is to be learnt, from what, where to.

    Attributes:
        scene: What is learnt from.
        recipe: Every setting.
        out: Folder of the result.
        device: A device that exists.
        base_hash: `Backbone.content_hash` before training.
        fingerprint: The run's, see `lineages`.
        tell: Told what happens.
        interruption: Looked at between steps.
        begun: What is merged into the base.
        restart: Whether what `out` holds of an earlier run goes once nothing refuses this one.
    """

    scene: Scene
    recipe: Recipe
    out: Path
    device: str
    base_hash: str
    fingerprint: str
    tell: Listener
    interruption: Interruption
    begun: Beginning | None = None
    restart: bool = False
