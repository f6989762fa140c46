"""What emphasis on the named handles does to the pictures of an adapter.

    python -m benchmarks.emphasis ADAPTER SCENE [ADAPTER SCENE ...] [--factor 1.5] [--out FILE]

The pictures of the protocol `mini`, as they are drawn and with every handle of a prompt emphasised,
as `generate --emphasis HANDLE=FACTOR` does it: a line an adapter, of what the embedded judge gives
to both.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.records import circumstances, write
from lora_scene.creating.requests import Control
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.judging.evaluation import weigh
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.plans import Plan, cells_of
from lora_scene.judging.watched_drawing import Drawn, draw_watched
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.workshop.protocol import read_protocol

PROTOCOL = Path(__file__).parent / "protocols" / "mini.toml"
KEPT = ("exact_set", "identity", "prompt_similarity", "missing_rate", "repeat_rate")


def drawn_with(
    studio: Studio, scene: Scene, judge: Judge, *, plan: Plan, factor: float
) -> dict[str, float | None]:
    """Draw a plan with every named handle emphasised by a factor; return what it is given.

    Args:
        studio: The base with the adapter.
        scene: The adapter's scene, framed.
        judge: Weighs the pictures.
        plan: What is drawn.
        factor: Of the attention's odds; 1 changes nothing.
    """
    cells = cells_of(plan, scene)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)  # a batch has one control
    for number, cell in enumerate(cells):
        alike[cell.subset].append(number)
    drawn: dict[int, Drawn] = {}
    for subset, numbers in alike.items():
        emphases = tuple((scene.handles[k], factor) for k in subset) if factor != 1 else ()
        control = Control(emphases=emphases)
        asked = [replace(cells[number].asked, control=control) for number in numbers]
        drawn |= zip(numbers, draw_watched(studio, asked, sampling=plan.sampling), strict=True)
    found = weigh(cells, [drawn[n] for n in range(len(cells))], scene=scene, judge=judge)
    return {name: found.summary[name] for name in KEPT}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a line an adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", metavar="ADAPTER SCENE")
    parser.add_argument("--factor", type=float, default=1.5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if len(given.pairs) % 2:
        parser.error("an adapter and its scene, in turn")
    judge, about = load_judge("mini", device="cpu"), circumstances("cpu")
    plan = read_protocol(PROTOCOL).plan
    for adapter, place in zip(given.pairs[::2], given.pairs[1::2], strict=True):
        studio = open_studio([adapter], base="mini", device="cpu")
        scene = frame_scene(load_scene(place), studio.backbone.canvas())
        both = [drawn_with(studio, scene, judge, plan=plan, factor=f) for f in (1.0, given.factor)]
        line = {"scene": Path(place).name, "factor": given.factor}
        write({**line, "as_is": both[0], "emphasised": both[1], **about}, given.out)


if __name__ == "__main__":
    main()
