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
from lora_scene.scenes.scene import load_scene

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300_000  # milliseconds: for a machine that does other things too
PINEAPPLE = (0.16, 0.42)  # a place in it, shares of the demo's photo


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        assert os.environ.get("LORA_SCENE_BROWSER") != "needed", "no browser on this machine"
        pytest.skip("no browser on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
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


def open_page(browser, address, hosts, width=1280):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.on(
        "request",
        lambda request: hosts.add(re.sub(r"^(https?://[^/:]+|\w+:).*", r"\1", request.url)),
    )
    page.goto(address)
    page.wait_for_selector("#photos input[type=file]", state="attached")
    page.wait_for_selector("#photo-facts", state="attached")
    return page


def set_number(page, elem_id, value):
    field = page.locator(f"#{elem_id} input[type=number]").first
    field.fill(str(value))
    field.press("Tab")


def click_on(page, place):
    frame = page.locator("#canvas img").bounding_box()
    page.mouse.click(
        frame["x"] + place[0] * frame["width"], frame["y"] + place[1] * frame["height"]
    )


def test_from_a_photo_by_clicks_to_a_picture(browser, served, tmp_path):
    address, out = served
    hosts = set()
    page = open_page(browser, address, hosts)
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no image")
    page.set_input_files("#photos input[type=file]", wrong)
    page.wait_for_selector(".said.fault")
    assert page.inner_text(".said.fault").startswith("notes.txt: not a readable image")

    photo = tmp_path / "fruit.png"
    shutil.copy(Path(str(resources.files("lora_scene.scenes") / "demo" / "img.png")), photo)
    page.set_input_files("#photos input[type=file]", photo)
    page.wait_for_selector("#canvas img", state="visible")
    assert not page.locator(".said.fault").count()
    click_on(page, PINEAPPLE)
    page.wait_for_selector("#things label")
    other = open_page(browser, address, hosts, width=390)
    other.get_by_role("tab", name="2 Things").click()
    other.wait_for_selector("#things label", state="visible")
    assert "<thing1>" in other.inner_text("#things")
    other.close()

    page.click("#to-train")
    set_number(page, "steps1", 2)
    set_number(page, "steps2", 2)
    page.click("#start")
    page.wait_for_selector('[data-state="running"], [data-state="finished"]')
    page.reload()
    page.get_by_role("tab", name="3 Train").click()
    page.wait_for_selector('[data-state="finished"]')
    page.click("#to-pictures")
    page.click("#chips button")
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('<thing1>')")
    set_number(page, "steps", 2)
    set_number(page, "count", 1)
    page.click("#draw")
    page.wait_for_selector("#pictures img")
    (picture,) = (out / "fruit" / "pictures").glob("*.png")
    assert read_record(picture)["prompt"] == "a photo of <thing1>"

    scene = load_scene(out / "fruit" / "scene")
    assert (scene.photos[0].pixels == np.asarray(Image.open(photo).convert("RGB"))).all()
    assert scene.photos[0].masks[0].mean() > 0.01
    assert hosts <= {"http://127.0.0.1", "data:", "blob:"}
    assert not [path for path in (out / "uploads").rglob("*") if path.suffix in (".txt", ".jpg")]
