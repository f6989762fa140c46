from __future__ import annotations

import dataclasses
import functools
import io
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_scene import load_adapter
from lora_scene.adapters import gallery
from lora_scene.adapters import hub as hub_module
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.hub import copy_adapter, fetch_adapter, publish
from lora_scene.adapters.location import locate
from lora_scene.adapters.staging import stage_adapter
from lora_scene.cli.main import root
from lora_scene.errors import AdapterError, FileError, HubError, LoraSceneError
from tests import tiny
from tests.adapters import loopback, made

TOKEN = "hf_" + "s3cret" * 6
REPO = "someone/plush"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "plush"
    save_adapter(made.adapter(tiny.pipeline(), "sd1", n_vectors=2), path)
    (path / "samples").mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), "teal").save(path / "samples" / f"00700-{number}.png")
    return path


@pytest.fixture
def stage(folder, tmp_path):
    stage_adapter(folder, tmp_path / "stage", title=Title("plush"), repo_id=REPO, dtype="fp32")
    return tmp_path / "stage"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
    with loopback.serve() as served:
        monkeypatch.setattr(
            hub_module, "fetch_adapter", functools.partial(fetch_adapter, endpoint=served.url)
        )
        monkeypatch.setattr(hub_module, "publish", functools.partial(publish, endpoint=served.url))
        yield served


def test_what_is_pushed_is_what_is_pulled(hub, stage, folder, tmp_path):
    published = publish(stage, REPO, endpoint=hub.url)
    assert set(hub.repos[REPO]) == set(published.files) == {
        "README.md", "plush.json", "plush.preview.png", "plush.safetensors",
        "plush_bundle.safetensors", "pytorch_lora_weights.safetensors",
        "embeddings/plush_bear.safetensors", "embeddings/plush_bowl.safetensors",
        "samples/00700-0.png", "samples/00700-1.png", "samples/00700-2.png", "samples/sheet.png",
    }  # fmt: skip
    assert hub.private == set()
    copy_adapter(fetch_adapter(REPO, endpoint=hub.url), tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert names == [
        "plush_bear.safetensors",
        "plush_bowl.safetensors",
        "pytorch_lora_weights.safetensors",
    ]
    assert read_adapter(tmp_path / "out").info == read_adapter(folder).info
    pipe = tiny.pipeline()
    assert load_adapter(pipe, REPO).handles == ("<bear>", "<bowl>")


def test_pushing_again_and_to_an_existing_repository_works(hub, stage):
    publish(stage, REPO, private=True, endpoint=hub.url)
    assert hub.private == {REPO}
    assert publish(stage, REPO, endpoint=hub.url).url.endswith(hub.commit(REPO))


@pytest.mark.parametrize(
    ("where", "status", "match"),
    [
        ("/api/repos/create", 401, "does not know you; nothing was published(.|\n)*hf auth login"),
        ("/api/repos/create", 403, "may not do that"),
        ("/commit/", 409, "changed the repository meanwhile; nothing was(.|\n)*same command again"),
        ("/preupload/", 500, "the hub failed; nothing was published"),
        ("/commit/", 500, "the hub failed; nothing was published(.|\n)*run the same command"),
    ],
)
def test_a_failed_push_is_said_plainly_and_publishes_nothing(hub, stage, where, status, match):
    hub.fail[("POST", where)] = status
    with pytest.raises(HubError, match=match) as caught:
        publish(stage, REPO, endpoint=hub.url)
    assert TOKEN not in str(caught.value)
    assert hub.repos.get(REPO, {}) == {}
    hub.fail.clear()
    assert set(publish(stage, REPO, endpoint=hub.url).files) == set(hub.repos[REPO])


def test_a_half_published_adapter_is_not_called_done(hub, stage):
    hub.lose = "embeddings/plush_bowl.safetensors"
    with pytest.raises(HubError, match=r"does not show what was sent(.|\n)*bowl.safetensors"):
        publish(stage, REPO, endpoint=hub.url)


def test_a_hub_that_is_not_there(stage, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(HubError, match="cannot be reached; nothing was published") as caught:
        publish(stage, REPO, endpoint="http://127.0.0.1:9")
    assert TOKEN not in str(caught.value)


def test_a_pull_that_fails_halfway_leaves_nothing(hub, stage, tmp_path):
    publish(stage, REPO, endpoint=hub.url)
    hub.fail[("GET", "bowl.safetensors")] = 500
    with pytest.raises(HubError, match="nothing was loaded"):
        copy_adapter(fetch_adapter(REPO, endpoint=hub.url), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_version_pulled_over_another_is_exchanged_as_a_whole(tmp_path, monkeypatch):
    pipe = tiny.pipeline()
    old = save_adapter(made.adapter(pipe, "sd1"), tmp_path / "old")
    new = save_adapter(made.adapter(pipe, "sd1", unet=False, seed=4), tmp_path / "new")
    out = tmp_path / "out"
    copy_adapter(old, out)
    (out / "notes.txt").write_text("mine")
    real = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: real(a, b) if "bowl" not in str(a) else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            copy_adapter(new, out)
    assert read_adapter(out).modules
    copy_adapter(new, out)
    assert not read_adapter(out).modules
    names = sorted(path.name for path in out.rglob("*"))
    assert names == ["bear.safetensors", "bowl.safetensors", "embeddings", "notes.txt"]


@pytest.mark.parametrize("other", ["a run", "another scene", "a foreign file"])
def test_nothing_is_pulled_over_what_may_be_the_only_copy(tmp_path, other):
    pipe = tiny.pipeline()
    new = save_adapter(made.adapter(pipe, "sd1", seed=4), tmp_path / "new")
    out = tmp_path / "out"
    if other == "a foreign file":
        out.mkdir()
        (out / "pytorch_lora_weights.safetensors").write_bytes(b"mine")
    else:
        handles = {"handles": ("<dog>",)} if other == "another scene" else {}
        save_adapter(made.adapter(pipe, "sd1", **handles), out)
        if other == "a run":
            (out / "recipe.toml").write_text("")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(LoraSceneError, match=r"full precision|another scene|did not write"):
        copy_adapter(new, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_adapter_with_a_file_whose_metadata_are_gone_is_pulled(tmp_path):
    source = save_adapter(made.adapter(tiny.pipeline(), "sd1"), tmp_path / "source")
    path = source / "embeddings" / "bear.safetensors"
    save_file(load_file(path), path)  # as another tool saves it again
    copy_adapter(source, tmp_path / "out")
    assert fingerprint(read_adapter(tmp_path / "out")) == fingerprint(read_adapter(source))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_of_the_place_that_is_full(tmp_path, monkeypatch):
    source = save_adapter(made.adapter(tiny.pipeline(), "sd1"), tmp_path / "source")
    real = open

    def full(file, mode="r", *args, **kwargs):
        is_ours = "w" in mode and "embeddings" in str(file)
        return real("/dev/full" if is_ours else file, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", full)
    with pytest.raises(FileError, match=re.escape(f"{tmp_path / 'out'}: the disk is full")):
        copy_adapter(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["plush", "", "a/b/c", "some one/x", "me/it.git"])
def test_what_names_no_repository_is_told_before_anything_is_done(name, folder, tmp_path):
    with pytest.raises(AdapterError, match=r"no name of a repository(.|\n)*USER/NAME"):
        stage_adapter(folder, tmp_path / "s", title=Title("x"), repo_id=name, dtype="fp16")
    assert not (tmp_path / "s").exists()
    for verb in (["push", "--dry-run"], ["card"]):
        told = CliRunner().invoke(root, [*verb, str(folder), "--repo", name])
        assert told.exit_code == 2
        said = "no name of a repository, such as USER/NAME" if name else "--repo is empty"
        assert said in " ".join(told.stderr.split())
    assert not (folder / "README.md").exists()


def test_only_safetensors_of_the_layout_are_pulled(hub):
    hub.repos["x/pickle"] = {"pytorch_lora_weights.bin": b"\x80\x04."}
    with pytest.raises(HubError, match="pickled files are never opened"):
        fetch_adapter("x/pickle", endpoint=hub.url)
    hub.repos["x/escape"] = {
        "embeddings/../../../evil.safetensors": b"",
        "/etc/evil.safetensors": b"",
        "embeddings/a b.safetensors": b"",
    }
    with pytest.raises(HubError, match="no adapter of lora_scene"):
        fetch_adapter("x/escape", endpoint=hub.url)
    assert not any(request.startswith(("GET /x/", "HEAD /x/")) for request in hub.requests)
    with pytest.raises(HubError, match="no such repository"):
        fetch_adapter("x/absent", endpoint=hub.url)


def test_hostile_content_from_a_hub_is_refused_before_it_is_copied(hub, stage, tmp_path):
    publish(stage, REPO, endpoint=hub.url)
    name = "embeddings/plush_bear.safetensors"
    hub.repos[REPO][name] = hub.repos[REPO][name][:-4]
    with pytest.raises(AdapterError, match="cut short"):
        copy_adapter(fetch_adapter(REPO, endpoint=hub.url), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_commands_push_and_pull(hub, folder, tmp_path):
    args = ["push", str(folder), "--repo", REPO]
    dry = CliRunner().invoke(root, [*args, "--dry-run"])
    assert dry.exit_code == 0, f"{dry.output} {dry.exception}"
    assert "README.md" in dry.stdout
    assert hub.requests == []
    pushed = CliRunner().invoke(root, args)
    assert pushed.exit_code == 0, f"{pushed.output} {pushed.exception}"
    assert f"done: 12 files, {hub.url}/{REPO}/commit" in pushed.stdout
    assert TOKEN not in pushed.output
    out = tmp_path / "pulled"
    pulled = CliRunner().invoke(root, ["pull", REPO, "--out", str(out)])
    assert pulled.exit_code == 0, f"{pulled.output} {pulled.exception}"
    assert read_adapter(out).handles == ("<bear>", "<bowl>")
    copied = CliRunner().invoke(root, ["pull", str(out), "--out", str(tmp_path / "copy")])
    assert copied.exit_code == 0
    assert {token.removeprefix("Bearer ") for token in hub.tokens} == {TOKEN}


def test_weights_of_an_earlier_version_that_stay_are_told(hub, folder):
    old = "embeddings/old_cat.safetensors"
    hub.repos[REPO] = {old: b"x", ".gitattributes": b"x", "notes.txt": b"x"}
    told = CliRunner().invoke(root, ["push", str(folder), "--repo", REPO])
    assert told.exit_code == 0, f"{told.output} {told.exception}"
    assert f"not of this version: {old}. Readers" in told.stderr
    assert old in hub.repos[REPO]
    del hub.repos[REPO][old]
    assert not CliRunner().invoke(root, ["push", str(folder), "--repo", REPO]).stderr


def test_a_revision_is_pulled_or_refused(hub, folder, tmp_path):
    hub.repos[f"{REPO}@v1"] = {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.safetensors")
    }
    hub.repos[REPO] = {"README.md": b"no adapter any longer"}
    out = tmp_path / "v1"
    for revision in ("v1", hub.commit(f"{REPO}@v1")):
        pulled = CliRunner().invoke(root, ["pull", REPO, "--revision", revision, "--out", str(out)])
        assert pulled.exit_code == 0, f"{pulled.output} {pulled.exception}"
    assert read_adapter(out).handles == ("<bear>", "<bowl>")
    with pytest.raises(HubError, match="no such branch, tag or commit"):
        locate(REPO, revision="v2")


def test_the_card_has_what_hubs_want(stage):
    card = ModelCard.load(stage / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "someone/tiny-base"
    assert data["base_model_relation"] == "adapter"
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert data["license"] == "creativeml-openrail-m"
    assert {"lora", "template:sd-lora", "stable-diffusion"} <= set(data["tags"])
    assert data["widget"][2]["output"]["url"] == "samples/00700-2.png"
    assert "<bear>" in data["instance_prompt"]
    for expected in (
        "noun 0",
        "embedding:plush_bear",
        "<lora:plush:1>",
        "snapshot_download",
        "sd15",
    ):
        assert expected in card.text


def test_a_card_that_is_not_fit_stops_a_push(hub, folder, tmp_path):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    for text, match in (
        ("no front matter", "lacks a field"),
        ("---\nlicense: [\n---\n", "broken front matter"),
        ("caf\u00e9".encode("latin-1"), "README.md: cannot be read"),
        ("---\nlicense: mit\n---\n".encode("utf-16"), "save it as UTF-8"),
    ):
        (own / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
        result = CliRunner().invoke(root, ["push", str(own), "--repo", REPO])
        assert isinstance(result.exception, AdapterError), result.output
        assert match in str(result.exception)
    assert hub.requests == []


def test_the_card_command_writes_into_the_folder(folder, tmp_path):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    result = CliRunner().invoke(root, ["card", str(own), "--repo", REPO, "--license", "mit"])
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert ModelCard.load(own / "README.md").data.license == "mit"
    text = (own / "README.md").read_text().replace("\n", "\r\n")
    (own / "README.md").write_bytes(text.encode("utf-8-sig"))  # as editors on Windows save it
    stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")
    assert ModelCard.load(tmp_path / "stage" / "README.md").data.license == "mit"


@pytest.mark.parametrize(
    "line",
    [
        'folder = snapshot_download("someone/other")',
        "lora_scene.load_adapter(pipeline, 'someone/other')",
        "folder = '/home/someone/plush'",
    ],
)
def test_a_card_that_loads_another_adapter_is_not_published(hub, folder, tmp_path, line):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    wrote = CliRunner().invoke(root, ["card", str(own), "--repo", REPO])
    assert wrote.exit_code == 0, wrote.output
    stage_adapter(own, tmp_path / "fine", title=Title("own"), repo_id=REPO, dtype="fp16")
    card = own / "README.md"
    card.write_text(card.read_text() + f"\n```python\n{line}\n```\n")
    with pytest.raises(AdapterError, match=r"another adapter(.|\n)*card DIR --repo someone/plush"):
        stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")


def retrained(folder):
    """Save what was learnt longer, of other things, in an adapter's folder."""
    later = made.adapter(tiny.pipeline(), "sd1", handles=("<bear>", "<mug>"), seed=5)
    info = dataclasses.replace(later.info, base_model="other/base", steps=(800, 2000))
    save_adapter(dataclasses.replace(later, info=info), folder)


def test_a_card_that_nobody_edited_is_published_as_of_today(folder, tmp_path):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    CliRunner().invoke(root, ["card", str(own), "--license", "mit"], catch_exceptions=False)
    retrained(own)
    stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")
    card = (tmp_path / "stage" / "README.md").read_text()
    assert "other/base" in card
    assert "800 for the rows alone, then 2000" in card
    assert "`<mug>`" in card
    assert "`<bowl>`" not in card
    assert "tiny-base" not in card
    assert ModelCard(card).data.license == "mit"


def test_an_edited_card_of_an_earlier_adapter_is_not_published(folder, tmp_path):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    CliRunner().invoke(root, ["card", str(own), "--repo", REPO], catch_exceptions=False)
    card = own / "README.md"
    text = card.read_text().replace("Learnt from very few", "Made with love from very few")
    card.write_text(text.replace("| seed | 7 |", "| seed   | 7 |\n| hours | 2 |"))
    stage_adapter(own, tmp_path / "fine", title=Title("own"), repo_id=REPO, dtype="fp16")
    assert "with love" in (tmp_path / "fine" / "README.md").read_text()
    retrained(own)
    told = r"another adapter(.|\n)*<bowl>; base someone/tiny-base .*; steps 400 (.|\n)*card DIR"
    with pytest.raises(AdapterError, match=told):
        stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")


@pytest.mark.parametrize("verb", [["push", "--repo", REPO, "--dry-run"], ["export"]])
@pytest.mark.parametrize("edited", [False, True])
def test_a_licence_that_the_card_contradicts_is_refused(folder, tmp_path, verb, edited):
    own, out = tmp_path / "own", ["--out", str(tmp_path / "out")] if verb == ["export"] else []
    copy_adapter(folder, own)
    card = ["card", str(own), "--repo", REPO, "--license", "mit"]
    CliRunner().invoke(root, card, catch_exceptions=False)
    if edited:
        (own / "README.md").write_text((own / "README.md").read_text() + "More.\n")
    call = [verb[0], str(own), *verb[1:], *out, "--license"]
    other = CliRunner().invoke(root, [*call, "openrail++"])
    assert "the card states another licence" in str(other.exception)
    same = CliRunner().invoke(root, [*call, "MIT"])
    assert same.exit_code == 0, f"{same.output} {same.exception}"


def test_a_name_that_no_file_can_have_stops_a_card_and_a_card_of_such_files_a_push(
    folder, tmp_path
):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    call = ["card", str(own), "--repo", REPO]
    refused = CliRunner().invoke(root, [*call, "--name", "My Bear"])
    assert "not a usable name for files" in str(refused.exception)
    assert not (own / "README.md").exists()
    CliRunner().invoke(root, call, catch_exceptions=False)
    card = own / "README.md"
    text = "The files of embeddings/ go there, and `embeddings/*.safetensors` are all.\n"
    card.write_text(card.read_text() + text)
    stage_adapter(own, tmp_path / "fine", title=Title("own"), repo_id=REPO, dtype="fp16")
    card.write_text(card.read_text() + "`embeddings/My Bear_bear.safetensors`\n")
    with pytest.raises(AdapterError, match=r"embeddings that are not there(.|\n)*My Bear_bear"):
        stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")


@pytest.mark.parametrize("name", ["README.md", "samples/00900-0.png", "samples"])
def test_a_link_in_a_folder_is_not_published(folder, tmp_path, name):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).symlink_to(secret)
    with pytest.raises(AdapterError, match="symbolic link is never published"):
        stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")
    assert not (tmp_path / "stage" / "README.md").exists()


def test_published_samples_are_pixels_alone(folder, tmp_path):
    own = tmp_path / "own"
    copy_adapter(folder, own)
    (own / "samples").mkdir()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (32, 32), "teal").save(own / "samples" / "00700-0.png", exif=exif)
    stage_adapter(own, tmp_path / "stage", title=Title("own"), repo_id=REPO, dtype="fp16")
    written = tmp_path / "stage" / "samples" / "00700-0.png"
    assert b"taken at home" not in written.read_bytes()
    with Image.open(written) as image:
        assert image.getpixel((0, 0)) == (0, 128, 128)


def test_a_sheet_of_many_stops_keeps_the_row_that_is_delivered(tmp_path, monkeypatch):
    """It may be none of the last: a snapshot that was taken."""
    rows = []

    def laid(cells, **told):
        rows.extend(told["rows"])
        return Image.new("RGB", (4, 4))

    for step in range(100, 2100, 100):
        gallery.save_samples([Image.new("RGB", (4, 4))], ["a <bear>"], tmp_path, step)
    monkeypatch.setattr(gallery, "contact_sheet", laid)
    gallery.write_sheet(tmp_path, delivered=700)
    assert len(rows) == gallery.MOST_ROWS
    assert "step 700, delivered" in rows
    assert rows == sorted(rows, key=lambda row: int(row.split()[1].rstrip(",")))
