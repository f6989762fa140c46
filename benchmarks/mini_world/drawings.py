"""Fetch the openly licensed drawings and rasterise them into one cache file.

    python -m benchmarks.mini_world.drawings --cache DIR

needs `npm` and the Python package `resvg-py`; everything after it needs neither.
"""

import argparse
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Style = Literal["fluent", "fluent-flat", "noto-v1", "noto"]

TRAINING_STYLES: tuple[Style, ...] = ("fluent", "fluent-flat", "noto-v1")
"""What the base may see. The autoencoder sees every drawing of these styles."""

HELD_OUT_STYLE: Style = "noto"
"""The style of the concepts to be learnt: never drawn while the base is trained."""

PACKAGES: dict[Style, str] = {
    "fluent": "@lobehub/fluent-emoji-3d@1.1.0",
    "fluent-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "noto": "emoji-datasource-google@16.0.0",
}
NAMES_PACKAGE = "unicode-emoji-json@0.9.0"

SIDE = 64
"""Side of a cached drawing, px: its longer side touches the edges."""

_SKIN_TONES = tuple(f"1f3f{digit}" for digit in "bcdef")
_OPAQUE = 128
_FILE = "drawings.npz"


@dataclass(frozen=True)
class Drawings:
    """A stack of drawings, each cropped to its opaque part and fitted into SIDE x SIDE px.

    Attributes:
        rgba: (N, SIDE, SIDE, 4) uint8, straight alpha.
        styles: (N,) the style of each.
        codes: (N,) the code points of each, lower-case hexadecimal joined by "-".
    """

    rgba: NDArray[np.uint8]
    styles: NDArray[np.str_]
    codes: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.rgba)

    def of(self, *styles: Style) -> "Drawings":
        """Return the drawings of the given styles alone."""
        keep = np.isin(self.styles, styles)
        return Drawings(self.rgba[keep], self.styles[keep], self.codes[keep])

    def find(self, style: Style, code: str) -> NDArray[np.uint8] | None:
        """Return one drawing, (SIDE, SIDE, 4) uint8, or None where the style lacks it."""
        hits = np.flatnonzero((self.styles == style) & (self.codes == code))
        return self.rgba[hits[0]] if len(hits) else None


def load_drawings(cache: Path) -> Drawings:
    """Read the cache that this script wrote.

    Raises:
        FileNotFoundError: the drawings were not built into `cache` yet.
    """
    path = cache / _FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no drawings there; build them with "
            f"`python -m benchmarks.mini_world.drawings --cache {cache}`"
        )
    with np.load(path) as data:
        return Drawings(data["rgba"], data["styles"], data["codes"])


def save_drawings(cache: Path, drawings: Drawings) -> None:
    """Write the cache file, aside and then renamed."""
    cache.mkdir(parents=True, exist_ok=True)
    aside = cache / "drawings.part.npz"
    np.savez_compressed(aside, rgba=drawings.rgba, styles=drawings.styles, codes=drawings.codes)
    aside.replace(cache / _FILE)


def build_drawings(cache: Path) -> Drawings:
    """Fetch the packages into `cache`, rasterise every drawing and save them."""
    archives = {style: _fetch(name, cache / "npm") for style, name in PACKAGES.items()}
    slugs = _slugs(_fetch(NAMES_PACKAGE, cache / "npm"))
    seen: dict[tuple[str, str], NDArray[np.uint8]] = {}
    for style, archive in archives.items():
        for code, picture in _pictures(style, archive, slugs):
            fitted = _fit(picture)
            if fitted is not None and not any(tone in code for tone in _SKIN_TONES):
                seen.setdefault((style, code), fitted)
    styles, codes = zip(*seen, strict=True)
    drawings = Drawings(np.stack(list(seen.values())), np.array(styles), np.array(codes))
    save_drawings(cache, drawings)
    return drawings


def _fetch(package: str, folder: Path) -> Path:
    """Download one npm package as an archive, unless it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = package.rpartition("@")
    archive = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not archive.is_file():
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
    return archive


def _slugs(archive: Path) -> dict[str, str]:
    """Return code points -> the icon name that iconify gives them."""
    with tarfile.open(archive) as tar:
        table = _json(tar, "package/data-by-emoji.json")
    return {_code(emoji): entry["slug"].replace("_", "-") for emoji, entry in table.items()}


def _code(emoji: str) -> str:
    return "-".join(f"{ord(char):x}" for char in emoji if char != "\ufe0f")


def _pictures(
    style: Style, archive: Path, slugs: dict[str, str]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield (code points, RGBA picture) for every drawing of one package."""
    with tarfile.open(archive) as tar:
        if style in ("noto-v1", "fluent-flat"):
            yield from _icons(tar, slugs)
            return
        folder = "package/assets/" if style == "fluent" else "package/img/google/64/"
        for member in tar:
            if member.name.startswith(folder) and member.isfile():
                code = Path(member.name).stem.lower().replace("-fe0f", "").lstrip("0")
                picture = Image.open(io.BytesIO(_read(tar, member.name)))
                yield code, picture.convert("RGBA")


def _icons(tar: tarfile.TarFile, slugs: dict[str, str]) -> Iterator[tuple[str, Image.Image]]:
    """Rasterise the icons of an iconify package whose name belongs to one emoji."""
    import resvg_py

    collection = _json(tar, "package/icons.json")
    side = collection.get("width", 16)
    for code, slug in slugs.items():
        icon = collection["icons"].get(slug)
        if icon is None:
            continue
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink" width="{2 * SIDE}" '
            f'height="{2 * SIDE}" viewBox="0 0 {side} {side}">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg)
        yield code, Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _json(tar: tarfile.TarFile, name: str) -> Any:
    return json.loads(_read(tar, name))


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"{name}: not a file of the archive {tar.name!r}")
    return member.read()


def _fit(picture: Image.Image) -> NDArray[np.uint8] | None:
    """Crop to the opaque part and fit it, centred, into SIDE x SIDE px; None if empty."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha >= _OPAQUE)).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    scale = SIDE / max(picture.size)
    size = tuple(max(1, round(scale * length)) for length in picture.size)
    picture = resize_rgba(picture, size)
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return np.asarray(canvas)


def resize_rgba(picture: Image.Image, size: tuple[int, ...]) -> Image.Image:
    """Resize a straight-alpha RGBA picture without dark fringes (Lanczos)."""
    width, height = size
    premultiplied = picture.convert("RGBa")
    return premultiplied.resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")


def main() -> None:
    """Build the cache from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    drawings = build_drawings(parser.parse_args().cache)
    for style in PACKAGES:
        print(f"{style}: {np.sum(drawings.styles == style)} drawings")


if __name__ == "__main__":
    main()
