"""The page as a person has it: in a browser, against a server in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_scene.creating.picture_files import read_record
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300_000  # milliseconds: for a machine that does other things too
PINEAPPLE = (0.16, 0.42)  # a place in it, shares of the demo's photo
CAR = ((0.46, 0.05), (0.97, 0.38))  # corners around it
SIZE = (401, 387)  # pixels, of no power of two
STEP = 0.02  # of a photo's side: what an arrow key moves the cross by
MOST_TABS = 150  # a page that needs more to reach its next button is not for keys


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        assert os.environ.get("LORA_SCENE_BROWSER") != "needed", "no browser on this machine"
        pytest.skip("no browser on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running.new_context()  # one for all tabs, which share its cache
        running.close()


@pytest.fixture
def served(tmp_path):
    """Serve the page; give its address and its folder."""
    pytest.importorskip("gradio")
    out = tmp_path / "runs"
    words = ["page", "--base", "mini", "--out", str(out)]
    server = subprocess.Popen(
        [sys.executable, "-m", "lora_scene", *words], stdout=subprocess.PIPE, text=True
    )
    line = server.stdout.readline()
    try:
        yield line.partition(": ")[2].strip(), out
    finally:
        server.terminate()
        server.communicate()


class Tab:
    """A browser's tab with the page, and what it asked which hosts for."""

    def __init__(self, browser, address, width=1280):
        self.hosts, self.n_clicks = set(), 0
        self.page = browser.new_page()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.hosts.add(_host(request.url)))
        self.page.goto(address)
        self.wait_for("#photo-facts", state="attached")

    def wait_for(self, selector, **how):
        """Wait for an element; a fault that the page tells ends the wait."""
        self.page.wait_for_selector(f"{selector}, .said.fault", **how)
        faults = self.page.locator(".said.fault").all_inner_texts()
        assert not faults, faults

    def go_to(self, selector):
        """Go to an element by the Tab key alone."""
        self.page.wait_for_selector(f":is({selector}):not([disabled])")
        for _ in range(MOST_TABS):
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"no way by keys to {selector}")

    def press(self, selector):
        """Press a button by keys alone."""
        self.go_to(selector)
        self.page.keyboard.press("Enter")
        self.n_clicks += 1

    def point(self, place):
        """Point at a place of the photo by keys alone, from its middle."""
        self.go_to("#canvas, #canvas *")
        for share, (less, more) in zip(place, (("Left", "Right"), ("Up", "Down")), strict=True):
            n_steps = round((share - 0.5) / STEP)
            for _ in range(abs(n_steps)):
                self.page.keyboard.press(f"Arrow{more if n_steps > 0 else less}")
        self.page.keyboard.press("Enter")
        self.n_clicks += 1

    def drag(self, *corners):
        """Drag a box on the photo from one corner to the other."""
        frame = self.page.locator("#canvas img").bounding_box()
        mouse = self.page.mouse
        for (x, y), then in zip(corners, (mouse.down, mouse.up), strict=True):
            mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
            then()
        self.n_clicks += 1

    def set_number(self, elem_id, value):
        field = self.page.locator(f"#{elem_id} input[type=number]").first
        field.fill(str(value))
        field.press("Tab")


def _host(url):
    return re.sub(r"^(https?://[^/:]+|\w+:).*", r"\1", url)


def test_from_a_photo_by_clicks_to_a_picture(browser, served, tmp_path):
    address, out = served
    tab = Tab(browser, address)
    page = tab.page
    wrong, huge = tmp_path / "notes.txt", tmp_path / "huge.png"
    wrong.write_text("no image")
    Image.new("1", (8001, 8000)).save(huge)
    page.set_input_files("#photos input[type=file]", [wrong, huge])
    page.wait_for_selector(".said.fault")
    told = page.inner_text(".said.fault")
    assert "notes.txt: not a readable image" in told
    assert "huge.png: " in told
    assert "64 megapixels" in told

    photo = tmp_path / "fruit.png"
    with Image.open(str(resources.files("lora_scene.scenes") / "demo" / "img.png")) as demo:
        pixels = np.asarray(demo.convert("RGB").resize(SIZE))
    Image.fromarray(pixels).save(photo)
    page.set_input_files("#photos input[type=file]", photo)
    page.wait_for_selector("#canvas img", state="visible")
    tab.point(PINEAPPLE)
    tab.wait_for("#things label:nth-of-type(1)")
    tab.drag(*CAR)
    tab.wait_for("#things label:nth-of-type(2)")

    tab.press("#to-train")
    tab.set_number("steps1", 2)
    tab.set_number("steps2", 4000)
    tab.set_number("every", 0)
    page.focus("#base input")  # whoever goes on by Tab passes the recipes, and changes nothing
    tab.press("#start")
    tab.wait_for('[data-state="running"]')
    page.reload()
    page.get_by_role("tab", name="3 Train").click()
    other = Tab(browser, address, width=390)
    other.page.get_by_role("tab", name="3 Train").click()
    other.page.click("#pause")
    tab.wait_for('[data-state="paused"]')
    other.page.close()
    page.click("#resume")
    page.click("#stop")  # which can be asked for as soon as the training is there
    tab.wait_for('[data-state="finished"]')
    tab.press("#to-pictures")
    tab.set_number("steps", 2)
    tab.set_number("count", 1)
    tab.press("#draw")
    tab.wait_for("#pictures img")
    assert tab.n_clicks == 2 + 4  # of two things
    page.click("#chips button")
    page.wait_for_function("document.querySelector('#prompt textarea').value.endsWith('<thing1>')")
    page.click("#pictures .thumbnail-item")
    with page.expect_download() as saved:
        page.click("#save")
    page.click("#again")
    page.get_by_text("the same, byte for byte").wait_for()

    (picture,) = (out / "fruit" / "pictures").glob("*.png")
    assert Path(saved.value.path()).read_bytes() == picture.read_bytes()
    assert read_record(picture)["prompt"] == "a photo of <thing1> and <thing2>"
    assert load_recipe(out / "fruit" / "adapter" / "recipe.toml").phase2.steps == 4000
    scene = load_scene(out / "fruit" / "scene")
    assert (scene.photos[0].pixels == pixels).all()
    assert [mask.mean() > 0.01 for mask in scene.photos[0].masks] == [True, True]
    assert tab.hosts | other.hosts <= {"http://127.0.0.1", "data:", "blob:"}
    assert not [
        path
        for path in out.glob(".lora_scene-*.part/**/*")
        if path.name in ("notes.txt", "huge.png", "fruit.png")
    ]
