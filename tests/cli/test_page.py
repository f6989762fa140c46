import contextlib
import sys

from click.testing import CliRunner

from lora_scene.cli.main import root
from lora_scene.errors import FileError, LoraSceneError


def test_a_port_of_the_system_or_none_is_refused():
    for port in ("80", "70000", "x"):
        assert CliRunner().invoke(root, ["page", "--port", port]).exit_code == 2


def test_two_pages_in_one_folder_are_refused(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def taken(folder):
        raise FileError("another process writes into this folder", where=folder)
        yield

    monkeypatch.setattr("lora_scene.page.server.locked", taken)
    done = CliRunner().invoke(root, ["page", "--out", str(tmp_path)])
    assert isinstance(done.exception, FileError)


def test_without_gradio_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = CliRunner().invoke(root, ["page", "--out", str(tmp_path / "new")])
    assert isinstance(done.exception, LoraSceneError)
    assert "pip install gradio" in str(done.exception)
