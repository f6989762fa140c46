"""The page as a person has it: in a browser, against a server in a process of its own."""

import importlib
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
CAR = ((0.46, 0.06), (0.96, 0.38))  # corners around it
PANDA = ((0.04, 0.64), (0.42, 0.99))
SIZE = (401, 387)  # pixels, of no power of two
N_THINGS = 3
STEP = 0.02  # of a photo's side: what an arrow key moves the cross by
MOST_TABS = 50  # a page that needs more to reach its next button is not for keys
LATE = "requestAnimationFrame = (draw) => setTimeout(draw, 1000)"  # a busy machine's browser
TYPED = {"textbox", "number", "slider", "dataframe"}
ANSWERED = """typed => {  // fields to write in that an answer of the server sets
  const { components, dependencies } = window.gradio_config;
  const set = new Set(dependencies.filter((one) => one.backend_fn).flatMap((one) => one.outputs));
  const own = (one) => typed.includes(one.type) && !one.props.elem_classes.includes('news');
  return components.filter((one) => own(one) && set.has(one.id)).map((one) => one.props.label);
}"""
BOUNDED = """() => {  // numbers that Gradio itself would refuse, in words of its own
  const { components } = window.gradio_config;
  const numbers = components.filter((one) => one.type === 'number').map((one) => one.props);
  return numbers.filter((one) => one.minimum != null || one.maximum != null);
}"""
AUDIT = Path(__file__).with_name("audit.js").read_text("utf-8")


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    wanted = os.environ.get("LORA_SCENE_BROWSER")
    assert path or wanted != "needed", "no browser on this machine"
    if path is None or wanted == "none":
        pytest.skip("no browser on this machine")
    have = importlib.import_module if wanted == "needed" else pytest.importorskip
    api = have("playwright.sync_api")
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

    def __init__(self, browser, address, width=1280, colours="light"):
        self.hosts, self.n_clicks, self.cross = set(), 0, (0.5, 0.5)
        self.page = browser.new_page()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=colours)
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.hosts.add(_host(request.url)))
        self.page.goto(address)
        self.wait_for("#photo-facts", state="attached")

    def wait_for(self, selector, **how):
        """Wait for an element; a fault that the page tells ends the wait."""
        self.page.wait_for_selector(f"{selector}, .said.fault", **how)
        faults = self.page.locator(".said.fault").all_inner_texts()
        assert not faults, faults

    def audit(self):
        """Look whether everything that is seen can be read, named and reached in order."""
        assert self.page.evaluate(AUDIT) == []

    def go_to(self, selector, text=""):
        """Go to an element, once it is seen, by the Tab key alone."""
        self.page.locator(selector, has_text=text).locator("visible=true").first.wait_for()
        for _ in range(MOST_TABS):
            is_there = "([s, t]) => document.activeElement.matches(s) &&"
            is_there += " document.activeElement.innerText.startsWith(t)"
            if self.page.evaluate(is_there, [selector, text]):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"no way by keys to {selector} {text}")

    def press(self, selector, text=""):
        """Press a button by keys alone."""
        if not text:
            self.page.wait_for_selector(f"{selector}:not([disabled])")
        self.go_to(selector, text)
        self.page.keyboard.press("Enter")
        self.n_clicks += 1

    def write(self, selector, text):
        """Replace a field's text by keys alone."""
        self.go_to(selector)
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(str(text))

    def mark(self, *places):
        """Point at a place of the photo by keys alone, or at the corners of a box."""
        self.go_to("#canvas *")
        for place in places:
            moves = zip(place, self.cross, (("Left", "Right"), ("Up", "Down")), strict=True)
            for share, now, (less, more) in moves:
                n_steps = round((share - now) / STEP)
                for _ in range(abs(n_steps)):
                    self.page.keyboard.press(f"Arrow{more if n_steps > 0 else less}")
            self.page.keyboard.press("b" if len(places) > 1 else "Enter")
            self.cross = place
        self.n_clicks += 1

    def drag(self, *corners):
        """Drag a box on the photo from one corner to the other."""
        picture = self.page.locator("#canvas img")
        picture.evaluate("image => image.decode()")  # before, it has no height
        picture.scroll_into_view_if_needed()
        frame, mouse = picture.bounding_box(), self.page.mouse
        for (x, y), then in zip(corners, (mouse.down, mouse.up), strict=True):
            mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
            then()
        self.n_clicks += 1


def _host(url):
    return re.sub(r"^(https?://[^/:]+|\w+:).*", r"\1", url)


def test_from_a_photo_to_pictures_and_files_by_keys_alone(browser, served, tmp_path):
    address, out = served
    tab = Tab(browser, address)
    page = tab.page
    tab.audit()
    assert page.evaluate(ANSWERED, list(TYPED)) == []
    assert page.evaluate(BOUNDED) == []
    wrong, huge, photo = (tmp_path / name for name in ("notes.txt", "huge.png", "fruit.png"))
    wrong.write_text("no image")
    Image.new("1", (8001, 8000)).save(huge)
    with Image.open(str(resources.files("lora_scene.scenes") / "demo" / "img.png")) as demo:
        pixels = np.asarray(demo.convert("RGB").resize(SIZE))
    Image.fromarray(pixels).save(photo)
    upload(tab, [wrong, huge])
    page.wait_for_selector(".said.fault")
    told = page.inner_text(".said.fault")
    assert "notes.txt: not a readable image" in told
    assert "huge.png: " in told
    assert "64 megapixels" in told
    upload(tab, [photo])

    other = show_things(tab, browser, address)
    tab.n_clicks = 0
    train(tab, other)
    draw(tab)
    assert tab.n_clicks == 4  # and one for each thing
    (picture,) = (out / "fruit" / "pictures").glob("*.png")
    assert save(tab).read_bytes() == picture.read_bytes()
    share(tab)

    assert read_record(picture)["prompt"] == "a photo of <pineapple> and <thing1>"
    assert load_recipe(out / "fruit" / "adapter" / "recipe.toml").phase2.steps == 4000
    scene = load_scene(out / "fruit" / "scene")
    assert (scene.photos[0].pixels == pixels).all()
    assert [mask.mean() > 0.01 for mask in scene.photos[0].masks] == [True] * N_THINGS
    assert tab.hosts | other.hosts <= {"http://127.0.0.1", "data:", "blob:"}
    sent = {path.name for path in out.glob(".lora_scene-*.part/**/*")}
    assert not sent & {"notes.txt", "huge.png", "fruit.png"}


def upload(tab, files):
    with tab.page.expect_file_chooser() as asked:
        tab.press("#photos button")
    asked.value.set_files(files)


def show_things(tab, browser, address):
    """Show things by keys, and in a second tab, on a phone, by mouse; return that."""
    page = tab.page
    page.wait_for_selector("#canvas img", state="visible")
    tab.mark(PINEAPPLE)
    tab.wait_for("#things label:nth-of-type(1)")
    tab.write("#noun *", "a pineapple")
    page.keyboard.press("Enter")
    page.locator("#things", has_text="<pineapple>").wait_for()
    tab.mark(*CAR)
    tab.wait_for("#things label:nth-of-type(2)")
    other = Tab(browser, address, width=390, colours="dark")
    other.page.get_by_role("tab", name="2 Things").click()
    other.drag(*PANDA)
    for one in (other, tab):
        one.wait_for("#things label:nth-of-type(3)")
    assert tab.n_clicks + other.n_clicks == N_THINGS + 2  # two uploads
    tab.audit()
    other.audit()
    return other


def train(tab, other):
    """Start, reload, pause in another tab, resume, stop and keep."""
    page = tab.page
    page.evaluate(LATE)
    tab.press("#to-train")
    for field, value in (("steps1", 2), ("steps2", 4000), ("every", 0)):
        tab.write(f"#{field} input[type=number]", value)
    page.keyboard.press("Shift+Tab")
    tab.go_to("#recipe input")  # whoever passes the recipes by Tab changes nothing
    tab.press("#start")
    page.keyboard.press("Enter")  # as a double click does
    tab.wait_for('[data-state="running"]')
    page.reload()
    tab.wait_for("#photo-facts", state="attached")
    tab.press("[role=tab]", "3 Train")
    other.page.get_by_role("tab", name="3 Train").click()
    other.page.click("#pause")
    tab.wait_for('[data-state="paused"]')
    other.audit()
    other.page.close()
    tab.press("#resume")
    tab.wait_for('[data-state="running"]')
    tab.press("#stop")  # which can be asked for as soon as the training is there
    tab.wait_for('[data-state="finished"]')
    tab.audit()
    tab.n_clicks -= 3  # the tab, resume and stop, which others need not


def draw(tab):
    """Draw a picture, and write a handle into the prompt by its chip."""
    tab.press("#to-pictures")
    for field, value in (("steps", 2), ("count", 1)):
        tab.write(f"#{field} input[type=number]", value)
    tab.press("#draw")
    tab.wait_for("#pictures img")


def save(tab):
    """Save the picture, and make it again; return what was saved."""
    page = tab.page
    tab.press("#chips button")
    written = "document.querySelector('#prompt textarea').value.endsWith('<pineapple>')"
    page.wait_for_function(written)
    tab.press("#pictures .thumbnail-item")
    with page.expect_download() as saved:
        tab.press("#save")
    tab.press("#again")
    page.get_by_text("the same, byte for byte").wait_for()
    tab.audit()
    return Path(saved.value.path())


def share(tab):
    """Export and verify."""
    tab.press("#to-share")
    tab.press("#export")
    tab.wait_for("#files:visible")
    tab.press("#verify")
    tab.page.locator("#checks", has_text="matched").wait_for()
    tab.audit()


def test_one_finger_draws_a_box_and_two_scroll_the_page(browser, served):
    address, _ = served
    phone = browser.browser.new_context(has_touch=True, is_mobile=True)
    tab = Tab(phone, address, width=390)
    page = tab.page
    page.tap("#demo")
    tab.wait_for("#things label:nth-of-type(3)")
    touch(page, CAR)
    tab.wait_for("#things label:nth-of-type(4)")
    before = page.evaluate("scrollY")
    touch(page, ((0.3, 0.9), (0.3, 0.2)), ((0.7, 0.9), (0.7, 0.2)))
    page.wait_for_function(f"scrollY > {before}")
    page.tap("#to-train")  # comes after whatever the fingers asked for
    tab.wait_for("#start:not([disabled])")
    assert page.locator("#things label").count() == 4
    phone.close()


def touch(page, *ways):
    """Move a finger over the photo along each way at once."""
    picture = page.locator("#canvas img")
    picture.evaluate("image => image.decode()")
    frame, protocol = picture.bounding_box(), page.context.new_cdp_session(page)

    def points(share):
        at = [(1 - share) * np.array(start) + share * np.array(end) for start, end in ways]
        return [
            {"x": frame["x"] + x * frame["width"], "y": frame["y"] + y * frame["height"], "id": n}
            for n, (x, y) in enumerate(at)
        ]

    for share in np.linspace(0, 1, 13):
        kind = "touchMove" if share else "touchStart"
        protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points(share)})
    protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
