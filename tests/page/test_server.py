from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from lora_scene.page import server
from lora_scene.targets import new_part


def test_what_is_sent_lies_where_nothing_of_anybodys_does(tmp_path, monkeypatch):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "theirs.txt").write_text("mine")
    monkeypatch.setattr("lora_scene.targets.process_record", lambda: ("0" * 8, 1, 1))
    debris = new_part(tmp_path)  # of another machine, long ago
    debris.mkdir()
    os.utime(debris, (0, 0))
    monkeypatch.undo()
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY",
                 "no_proxy", "NO_PROXY"):  # fmt: skip
        monkeypatch.setenv(name, "")
    part = SimpleNamespace(close=lambda **_: None)
    monkeypatch.setattr(server, "_build", lambda *_: (part, part))
    monkeypatch.setattr(server, "_launch", lambda *_: "here")
    with server.serving(tmp_path) as address:
        assert address == "here"
        assert os.path.isdir(os.environ["GRADIO_TEMP_DIR"])
        assert not debris.exists()
    assert not os.path.exists(os.environ["GRADIO_TEMP_DIR"])
    assert (tmp_path / "uploads" / "theirs.txt").read_text() == "mine"


def test_an_upload_that_finds_no_space_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / "tmphalf").write_bytes(b"half a photo")
    (tmp_path / "photo.png").write_bytes(b"another's")
    full = OSError(errno.ENOSPC, "No space left on device")
    answer = server._failing_uploads(tmp_path)
    asked, sent = (SimpleNamespace(url=SimpleNamespace(path=f"/gradio_api/{name}"))
                   for name in ("file", "upload"))  # fmt: skip
    with pytest.raises(OSError, match="No space left"):
        answer(asked, full)
    assert (tmp_path / "tmphalf").exists()
    told = answer(sent, full)
    assert told.status_code == 507
    assert b"disk is full" in told.body
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
