from __future__ import annotations

import base64
import time
import traceback

import pytest

from lora_scene.adapters import hub_calls
from lora_scene.adapters.hub import MAX_FILES, fetch_adapter, publish
from lora_scene.adapters.hub_calls import redacted
from lora_scene.errors import AdapterError, HubError
from tests.adapters import loopback

TOKEN = "hf_" + "s3cret" * 6
REPO = "someone/plush"
NAME = "embeddings/bear.safetensors"
CONTENT = bytes(range(256)) * 64


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_calls, "PATIENCE", 0.5)
    with loopback.serve() as served:
        served.repos[REPO] = {NAME: CONTENT, "README.md": b"hello"}
        yield served


@pytest.fixture
def stage(tmp_path):
    path = tmp_path / "stage"
    path.mkdir()
    (path / "README.md").write_text("# new\n")
    (path / "pytorch_lora_weights.safetensors").write_bytes(CONTENT)
    return path


def fetched(hub, **options):
    return (fetch_adapter(REPO, endpoint=hub.url, **options) / NAME).read_bytes()


def said(error: BaseException) -> str:
    """Return all that --debug would print."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("part", ["/api/models/", "/resolve/"])
def test_a_hub_that_hangs_is_given_up_with_a_sentence(hub, part):
    hub.hang.add(part)
    begun = time.monotonic()
    with pytest.raises(HubError, match=r"nothing was loaded(.|\n)*did not answer in time"):
        fetched(hub)
    assert time.monotonic() - begun < 5
    hub.heal()
    assert fetched(hub) == CONTENT


@pytest.mark.parametrize("part", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_push_to_a_hub_that_hangs_is_given_up_with_a_sentence(hub, stage, part):
    hub.hang.add(part)
    with pytest.raises(HubError, match=r"nothing was published(.|\n)*did not answer in time"):
        publish(stage, REPO, endpoint=hub.url)
    assert hub.repos[REPO]["README.md"] == b"hello"


def test_content_that_drips_is_given_up(hub):
    hub.drip.add("/resolve/")
    with pytest.raises(HubError, match="did not answer in time"):
        fetched(hub)


@pytest.mark.parametrize(("method", "part"), [("GET", "/resolve/"), ("GET", "/api/models/")])
def test_a_hub_that_asks_to_wait_for_a_day_is_not_waited_for(hub, method, part):
    hub.fail[method, part], hub.retry_after = 429, 86400
    with pytest.raises(HubError, match=r"asks to slow down|asked to wait for longer"):
        fetched(hub)


def test_an_endless_file_ends_where_it_was_to_end(hub, tmp_path):
    hub.flood.add("/resolve/")
    with pytest.raises(HubError, match="sends more than it announced"):
        fetched(hub)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_damaged_content_never_comes_into_the_cache(hub, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(hub_calls, "PATIENCE", 1.5)  # what is cut off is asked for again
    getattr(hub, kind).add("/resolve/")
    with pytest.raises(HubError):
        fetched(hub)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    hub.heal()
    assert fetched(hub) == CONTENT


@pytest.mark.parametrize("damage", [CONTENT[:-7], b"", CONTENT[:-1] + b"x"])
def test_a_damaged_cache_is_healed(hub, damage):
    path = fetch_adapter(REPO, endpoint=hub.url) / NAME
    path.write_bytes(damage)
    assert fetched(hub) == CONTENT


def test_what_was_fetched_is_not_fetched_again(hub):
    fetched(hub)
    before = len(hub.requests)
    assert fetched(hub) == CONTENT
    assert not any("/resolve/" in request for request in hub.requests[before:])


def test_what_was_fetched_is_there_offline(hub, monkeypatch):
    first = hub.commit(REPO)
    fetched(hub)
    fetched(hub, revision=first)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    assert fetched(hub) == fetched(hub, revision=first) == CONTENT
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set, and this was not fetched before"):
        fetch_adapter("someone/else", endpoint=hub.url)
    assert len(hub.requests) == before


def test_a_push_offline_says_why_not(hub, stage, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set.*nothing was published"):
        publish(stage, REPO, endpoint=hub.url)


@pytest.mark.parametrize("etag", ["../../../../evil", "/tmp/evil-etag", "a/../../../evil"])
def test_no_header_of_a_hub_becomes_a_path(hub, tmp_path, etag):
    hub.etag = etag
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert fetched(hub) == CONTENT
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    inside = tmp_path / "cache" / "lora_scene" / "someone--plush"
    assert all(path.is_relative_to(inside) for path in files), files
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


@pytest.mark.parametrize("commit", ["../../evil", "", "main"])
def test_a_commit_that_is_none_is_refused(hub, commit):
    hub.commit = lambda _name: commit
    with pytest.raises(HubError, match="names no commit"):
        fetched(hub)


def test_a_reply_lost_after_a_commit_is_not_called_a_failure(hub, stage):
    hub.drop_reply.add("/commit/")
    published = publish(stage, REPO, endpoint=hub.url)
    assert published.url == f"{hub.url}/{REPO}/commit/{hub.commit(REPO)}"
    assert hub.repos[REPO]["README.md"] == b"# new\n"


def test_a_reply_lost_after_half_a_commit_says_what_is_not_there(hub, stage):
    hub.drop_reply.add("/commit/")
    hub.lose = "pytorch_lora_weights.safetensors"
    with pytest.raises(HubError, match=r"does not show what was sent(.|\n)*1 of 2 files"):
        publish(stage, REPO, endpoint=hub.url)


def test_a_lost_reply_that_cannot_be_looked_into_is_not_called_nothing(hub, stage):
    hub.drop_reply.add("/commit/")
    hub.fail = _Later(hub, ("GET", "/api/models/"), 503)
    with pytest.raises(HubError, match="whether it was published could not be looked at"):
        publish(stage, REPO, endpoint=hub.url)


class _Later(dict):
    """Failures that begin with the first commit."""

    def __init__(self, hub, key, status):
        super().__init__({key: status})
        self.hub = hub

    def items(self):
        begun = any("/commit/" in request for request in self.hub.requests)
        return super().items() if begun else {}.items()


def test_a_push_that_was_given_up_does_not_go_on_unwatched(hub, stage, monkeypatch):
    stopped = []
    monkeypatch.setattr(hub_calls, "_stop", lambda thread: stopped.append(thread))
    hub.hang.add("/preupload/")
    with pytest.raises(HubError, match="did not answer in time"):
        publish(stage, REPO, endpoint=hub.url)
    monkeypatch.undo()
    hub_calls._stop(stopped[0])
    hub.heal()
    hub.over.set()  # the hub answers at last
    stopped[0].join(5)
    assert not stopped[0].is_alive()
    assert not any("/commit/" in request for request in hub.requests)


def test_a_hundred_thousand_files_take_seconds(hub, monkeypatch):
    crowd = {f"embeddings/n{i}.safetensors": b"x" for i in range(100_000)}
    hub.repos["x/crowd"] = crowd
    begun = time.monotonic()
    monkeypatch.setattr(hub_calls, "PATIENCE", 20.0)
    with pytest.raises(HubError, match=rf"at most {MAX_FILES}(.|\n)*100,000"):
        fetch_adapter("x/crowd", endpoint=hub.url)
    hub.repos["x/crowd"] = {f"data/{i}.png": b"x" for i in range(100_000)} | {NAME: CONTENT}
    assert (fetch_adapter("x/crowd", endpoint=hub.url) / NAME).read_bytes() == CONTENT
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "form",
    [
        TOKEN,
        f"Authorization: Bearer {TOKEN}x",
        f"https://user:{TOKEN}@hub.example/x",
        "https://someone:p4ssw0rd-p4ssw0rd@hub.example",
        "api_org_AbCdEfGhIjKl",
        "hf_oauth_eyJhbGciOi.eyJzdWIiOi.c2ln-x_y",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        base64.b64encode(f"user:{TOKEN}".encode()).decode(),
        TOKEN.encode().hex(),
        "https://cdn.example/x?Signature=AbCdEf123&token=AbCdEf456",
    ],
)
def test_tokens_of_any_form_are_redacted(hub, form):
    told = redacted(f"failed with {form} there")
    for secret in (TOKEN[3:], TOKEN.encode().hex(), "p4ssw0rd", "AbCdEf", "eyJ", "c2ln"):
        assert secret not in told, told
    assert told.startswith("failed with ")


def test_no_token_is_printed_with_debug_either(hub, stage, caplog):
    hub.fail["POST", "/commit/"] = 403  # its reply has the token in it
    with pytest.raises(HubError) as caught:
        publish(stage, REPO, endpoint=hub.url)
    hub.fail["GET", "/api/models/"] = 500
    with pytest.raises(HubError) as other:
        fetched(hub)
    for error in (caught.value, other.value):
        text = said(error)
        assert "Traceback" in text
        assert "failure" in text, "the hub's own words are there"
        assert TOKEN not in text
    assert TOKEN not in caplog.text


def test_links_are_never_published(hub, stage, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (stage / "notes.md").symlink_to(secret)
    with pytest.raises(AdapterError, match="symbolic link is never published"):
        publish(stage, REPO, endpoint=hub.url)
    assert hub.requests == []
