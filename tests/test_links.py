"""Every link, anchor and page that a text of this repository names is there."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "benchmarks", "lora_scene", "recipes", "tests")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
)
_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)
_NAMED = re.compile(r"\b(?:docs|benchmarks)/[\w./-]+\.md\b")


def links(page: str) -> list[str]:
    """Return what a page links to, code left out."""
    text = re.sub(r"`[^`\n]+`", "", _BLOCK.sub("", page))
    return [one or other for one, other in _LINK.findall(text)]


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(_BLOCK.sub("", page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@cache
def anchors_of(page: Path) -> set[str]:
    return anchors(page.read_text("utf-8"))


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    lost = []
    for link in links(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            lost.append(link)
    return lost


def test_links_and_anchors_are_read_as_they_are_shown() -> None:
    page = "# A `b`, c: [d](e.md)!\n\n## Twice\n## Twice\n```\n# no [f](g.md)\n```\n"
    assert anchors(page) == {"a-b-c-d", "twice", "twice-1"}
    shown = page + '[h](i.md#j), ![k](l.png) <img src="m.png" alt=""> `[n](o)`'
    assert links(shown) == ["e.md", "i.md#j", "l.png", "m.png"]


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Here\n", "utf-8")
    page = tmp_path / "b.md"
    page.write_text("[](a.md) [](a.md#here) [](c.md) [](a.md#there) [](#no) [](https://x)", "utf-8")
    assert broken(page) == ["c.md", "a.md#there", "#no"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_every_page_that_a_text_names_is_there() -> None:
    files = [file for file in ROOT.iterdir() if file.is_file()]
    files += [file for folder in FOLDERS for file in (ROOT / folder).rglob("*")]
    gone = []
    for file in files:
        if file.suffix in (".py", ".toml", ".md", ".jinja", ".html", ".cfg"):
            named = set(_NAMED.findall(file.read_text("utf-8")))
            lost = sorted(name for name in named if not (ROOT / name).is_file())
            gone += [(file.relative_to(ROOT), name) for name in lost]
    assert gone == []


def test_every_page_is_reached_from_the_first() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        paths = (link.partition("#")[0] for link in links(page.read_text("utf-8")))
        found = {(page.parent / path).resolve() for path in paths if path.endswith(".md")}
        ahead += [one for one in found - reached if one.is_file()]
    ours = {page for page in PAGES if page.parts[len(ROOT.parts)] in ("docs", "benchmarks")}
    assert sorted(page.relative_to(ROOT).as_posix() for page in ours - reached) == []
