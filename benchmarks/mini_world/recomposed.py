"""What recipe `mini` learns where many photos show the same drawings, as no user's do.

    python -m benchmarks.mini_world.recomposed SCENE [SCENE ...] --cache DIR --runs DIR
        [--photos 48] [--times 1] [--out FILE]

SCENE is one of the benchmark's scenes `d*` or `t*`, whose drawings are those of the held-out style
as they are. They are composed afresh, one or several of them a photo, on grounds that no prompt of
the judgement names. `ours` of the protocol `cures` learns from these photos, none of them
rearranged, in so many times the protocol's image-forwards, and is judged as there, by the scene's
own photo: a line a scene.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import SIDE, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.nouns import noun_set
from benchmarks.records import circumstances, write
from lora_scene.creating.studio import open_studio
from lora_scene.judging.evaluation import draw_and_weigh
from lora_scene.judging.judge import load_judge
from lora_scene.scenes.scene import Photo, Scene, load_scene
from lora_scene.workshop.methods import recipes_of, train_method
from lora_scene.workshop.protocol import Attempt, read_protocol

PROTOCOL = Path(__file__).parents[1] / "protocols" / "cures.toml"
JUDGED = ("grass", "snow", "brick")


def photographed(scene: Scene, sprites: Sprites, n_photos: int) -> Scene:
    """Return a scene's concepts in so many photos; the same at every call.

    Args:
        scene: One photo of drawings.
        sprites: The drawings, one a noun.
        n_photos: Each shows one concept or more.
    """
    rng = np.random.default_rng([len(scene.concepts), n_photos])
    grounds = [name for name in BACKGROUNDS if name not in JUDGED]
    photos = tuple(_photos(scene, sprites, n_photos, grounds, rng))
    return replace(scene, photos=photos)


def _photos(
    scene: Scene, sprites: Sprites, n: int, grounds: Sequence[str], rng: np.random.Generator
) -> Iterator[Photo]:
    n_concepts = len(scene.concepts)
    for number in range(n):
        shown = sorted(rng.permutation(n_concepts)[: rng.integers(1, n_concepts + 1)])
        ground = grounds[int(rng.integers(len(grounds)))]
        made = compose(sprites, [scene.nouns[k] for k in shown], ground, rng)
        masks = np.zeros((n_concepts, SIDE, SIDE), np.float32)
        for noun, mask in zip(made.nouns, made.masks, strict=True):
            masks[scene.nouns.index(noun)] = mask
        yield Photo(made.picture, masks, f"photo {number}")


def main() -> None:
    """Train and judge every scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the drawings")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--times", type=int, default=1, help="of the image-forwards")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for place in given.scenes:
        if not re.fullmatch(r"[dt]\d\d-\d", place.name):
            parser.error(f"{place}: a scene d* or t* is wanted; others' drawings are changed")
    sprites = Sprites(load_drawings(given.cache), noun_set("mini16"), [HELD_OUT_STYLE])
    protocol, about = read_protocol(PROTOCOL), circumstances("cpu")
    protocol = replace(protocol, image_forwards=given.times * protocol.image_forwards)
    ours = next(method for method in protocol.methods if method.name == "ours")
    wanted = (f"augment.n_variants={given.photos}", "augment.rearrange_prob=0")
    judge = load_judge("mini", device="cpu")
    for place in given.scenes:
        scene = load_scene(place)
        attempt = Attempt(replace(ours, overrides=wanted), "development", place, 0)
        many = photographed(scene, sprites, given.photos)
        recipes = recipes_of(protocol, attempt, scene=many)
        folder = given.runs / f"{place.name}-{given.photos}-{given.times}"
        trained = train_method(recipes, folder, device="cpu")
        studio = open_studio([*trained.folders], device="cpu")
        found = draw_and_weigh(studio, scene, judge=judge, plan=protocol.plan)
        told = {"scene": place.name, "photos": given.photos, "seed": 0}
        told |= {"image_forwards": trained.image_forwards, "seconds": trained.seconds}
        write({**told, "summary": dict(found.summary), **about}, given.out)


if __name__ == "__main__":
    main()
