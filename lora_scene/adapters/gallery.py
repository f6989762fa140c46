"""The pictures that training drew of an adapter, with the prompts they were drawn from.

samples/00400-0.png   <steps over both phases>-<number of the prompt>
samples/sheet.png     all stops under each other; the label of one says that it is delivered
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.errors import RecipeError
from lora_scene.ownership import is_ours
from lora_scene.picture_writing import write_picture
from lora_scene.recipe import Recipe, load_recipe, parse_recipe
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.union import prompt_for
from lora_scene.sheets import contact_sheet
from lora_scene.targets import refuse_foreign

FOLDER = "samples"
SHEET = "sheet.png"
PROMPT = "prompt"  # the text of a picture that keeps what it was drawn from
DRAWN_BY = "adapter"  # the text that keeps the fingerprint of what drew it, after training
MOST_ROWS = 12  # of a sheet: of more stops, some are left out
MOST_CELL = 320  # pixels; larger pictures are shown smaller there
_STOP = re.compile(r"(\d+)-(\d+)")  # the name of a picture: step, number


@dataclass(frozen=True)
class SamplePicture:
    """One picture.

    Attributes:
        path: Where it is.
        prompt: What it was drawn from.
    """

    path: Path
    prompt: str


def last_samples(folder: Path, adapter: Adapter) -> tuple[SamplePicture, ...]:
    """Return the pictures of the adapter as it is delivered, in order; none of earlier stops.

    Args:
        folder: The adapter's folder.
        adapter: The adapter, whose recipe knows the prompts of pictures that do not.
    """
    delivered = stops_of(folder).get(sum(adapter.info.steps), {})
    if adapter.info.taken and delivered:  # training drew at another weight
        own = fingerprint(adapter)
        delivered = {n: path for n, path in delivered.items() if _text_in(path, DRAWN_BY) == own}
    prompts = prompts_of(adapter)
    everything = " and ".join(adapter.handles)
    found = []
    for number, path in sorted(delivered.items()):
        named = prompts[number] if number < len(prompts) else everything
        found.append(SamplePicture(path, prompt_in(path) or named))
    return tuple(found)


def save_samples(
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
    folder: Path,
    step: int,
    *,
    drawn_by: Adapter | None = None,
) -> list[Path]:
    """Write pictures with their prompts.

    Args:
        pictures: One a prompt.
        prompts: With handles.
        folder: The adapter's folder.
        step: Counted over both phases.
        drawn_by: The adapter in the folder; None for one that is being trained.
    """
    texts = {DRAWN_BY: fingerprint(drawn_by)} if drawn_by else {}
    paths = [folder / FOLDER / f"{step:05}-{number}.png" for number in range(len(pictures))]
    for path, picture, prompt in zip(paths, pictures, prompts, strict=True):
        write_picture(path, picture, {PROMPT: prompt, **texts}, root=folder)
    return paths


def refuse_foreign_samples(folder: Path) -> None:
    """Refuse pictures of others under names that training gives to its own.

    Raises:
        FileError: There are some.
    """
    pictures = [path for numbers in stops_of(folder).values() for path in numbers.values()]
    for path in [*pictures, folder / FOLDER / SHEET]:
        refuse_foreign(path, folder)


def has_samples(folder: Path, step: int, prompts: Sequence[str]) -> bool:
    """Tell whether all pictures of a step are drawn, from these prompts."""
    drawn = {n: p for n, p in stops_of(folder).get(step, {}).items() if is_ours(p)}
    return all(n in drawn and prompt_in(drawn[n]) == text for n, text in enumerate(prompts))


def write_sheet(folder: Path, *, delivered: int | None = None) -> Path | None:
    """Write one picture of all stops that we drew: a row each, a column a prompt.

    Args:
        folder: The adapter's folder.
        delivered: The step whose row is labelled as what is delivered; None where it is to come.

    Returns:
        The file; None where there are no pictures.
    """
    stops = {
        step: {n: p for n, p in pictures.items() if is_ours(p)}
        for step, pictures in sorted(stops_of(folder).items())
    }
    steps = [step for step, pictures in stops.items() if pictures]
    if not steps:
        return None
    if len(steps) > MOST_ROWS:
        some = [steps[i] for i in np.linspace(0, len(steps) - 1, MOST_ROWS).round().astype(int)]
        nearest = min(some, key=lambda step: abs(step - (delivered or some[-1])))
        steps = [delivered if one == nearest and delivered in steps else one for one in some]
    numbers = range(1 + max(max(stops[step]) for step in steps))
    columns = [prompt_in(p) if (p := stops[steps[-1]].get(n)) else "" for n in numbers]
    rows = [f"step {step}{', delivered' if step == delivered else ''}" for step in steps]
    cells = [[_shown(p) if (p := stops[step].get(n)) else None for n in numbers] for step in steps]
    sheet = contact_sheet(cells, columns=columns, rows=rows)
    return write_picture(folder / FOLDER / SHEET, sheet, root=folder)


def stops_of(folder: Path, part: str = FOLDER, ending: str = ".png") -> dict[int, dict[int, Path]]:
    """Return the pictures that lie in a part of an adapter's folder: step, then number, to file."""
    stops: dict[int, dict[int, Path]] = {}
    for path in sorted((folder / part).glob(f"*{ending}")):
        if (match := _STOP.fullmatch(path.stem)) is not None:
            stops.setdefault(int(match[1]), {})[int(match[2])] = path
    return stops


def prompt_in(path: Path) -> str:
    """Return the prompt that a picture keeps, or an empty text."""
    return _text_in(path, PROMPT)


def _text_in(path: Path, key: str) -> str:
    """Return a text that a picture keeps, or an empty one."""
    if not path.is_file():  # a pipe may never end
        return ""
    try:
        with Image.open(path) as picture:
            return str(picture.info.get(key, ""))
    except Exception:  # decoders raise anything at all on a stranger's bytes
        return ""


def _shown(path: Path) -> Pixels:
    with Image.open(path) as picture:
        image = picture.convert("RGB")
    image.thumbnail((MOST_CELL, MOST_CELL), Image.Resampling.LANCZOS)
    return np.asarray(image)


def sample_prompts(recipe: Recipe, handles: Sequence[str]) -> tuple[str, ...]:
    """Return the recipe's sample prompts, or each handle alone and all together."""
    if recipe.run.sample_prompts:
        return recipe.run.sample_prompts
    template = recipe.handles.templates[0]
    alone = tuple(prompt_for([handle], None, template) for handle in handles)
    return (*alone, prompt_for(handles, None, template)) if len(handles) > 1 else alone


def prompts_of(adapter: Adapter) -> tuple[str, ...]:
    """Return the sample prompts of the recipe that an adapter holds."""
    try:
        recipe = parse_recipe(adapter.info.recipe_toml)
    except RecipeError:  # an adapter of another version may hold a recipe that is none here
        recipe = load_recipe("sd15")
    return sample_prompts(recipe, list(adapter.handles))
