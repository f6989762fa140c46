"""The one writer: files.py, file_groups.py, targets.py and faults.py."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path, PureWindowsPath

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save

from lora_scene import file_groups
from lora_scene.adapters.gallery import prompt_in
from lora_scene.errors import FileError
from lora_scene.faults import as_file_error, is_out_of_memory
from lora_scene.file_groups import clean_up, remove_ours, written_together
from lora_scene.files import check_file, check_target, write_json, write_text, writing
from lora_scene.folder_lock import LOCK, locked
from lora_scene.ownership import (
    is_ours,
    list_folder,
    metadata_of,
    own_files,
    seal_json,
    unsealed,
)
from lora_scene.picture_writing import encode_gif, encode_picture
from lora_scene.targets import refuse_names
from tests.mapped_files import MAPS

with_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders on Windows")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows guesses any user's home")
PIPE = pytest.param("pipe", marks=with_pipes)
DEAD = "4194305"  # above every Linux kernel's largest process id


def test_a_text_of_ours_is_replaced_and_an_edited_one_is_its_editors(tmp_path: Path) -> None:
    card = write_text(tmp_path / "README.md", "# a\n")
    write_text(card, "# b\n")
    assert card.read_text("utf-8").startswith("# b\n<!-- written by lora_scene (")
    card.write_text(card.read_text("utf-8").replace("# b", "# my own words"), "utf-8")
    with pytest.raises(FileError, match="edited since"):
        write_text(card, "# c\n")
    assert "my own words" in card.read_text("utf-8")
    write_text(card, "# c\n", force=True)
    assert card.read_text("utf-8").startswith("# c")


@pytest.mark.parametrize("suffix", [".toml", ".md", ".html"])
def test_line_ends_of_another_system_do_not_make_a_text_foreign(
    tmp_path: Path, suffix: str
) -> None:
    path = write_text(tmp_path / f"a{suffix}", "first\nsecond")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert is_ours(path)


def test_json_of_ours_survives_a_reformatting_but_no_change(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"x": (1, 2), "é": {"y": 0.1}})
    value = json.loads(path.read_text("utf-8"))
    assert unsealed(value) == {"x": [1, 2], "é": {"y": 0.1}}
    path.write_text(json.dumps(value), "utf-8")
    assert is_ours(path)
    path.write_text(json.dumps({**value, "x": [1, 3]}), "utf-8")
    assert not is_ours(path)
    lines = write_json(tmp_path / "a.jsonl", [{"n": 1}, {"n": 2}])
    assert is_ours(lines)
    lines.write_text(lines.read_text("utf-8") + '{"n": 3}\n', "utf-8")
    assert not is_ours(lines)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"not a picture"),
        ("a.png", b""),
        ("a.safetensors", b"\xff" * 9),
        ("a.safetensors", b"\x02" + b"\0" * 7 + b"{}"),
        ("a.safetensors", save({"x": torch.ones(2)}, {"lora_scene.note": "ours"}) + b"theirs"),
        ("a.json", b"[" * 100_000),
        ("a.json", b"\xff\xfe"),
        ("a.toml", b"x = 1\n"),
        ("a.bin", b"lora_scene"),
    ],
)
def test_what_is_foreign_or_damaged_is_refused_and_kept(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match="did not write"), writing(path) as aside:
        aside.write_bytes(b"new")
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [name]


def test_weights_of_ours_that_are_cut_short_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"x": torch.ones(2)}, {"lora_scene.note": "ours"}))
    assert is_ours(path)
    os.truncate(path, path.stat().st_size - 3)
    assert is_ours(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
def test_pictures_tell_their_writer(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.effect_noise((64, 64), 90).convert("RGB")
    image.save(path)
    assert not is_ours(path)
    data = encode_gif([image], milliseconds=9) if suffix == "gif" else encode_picture(image, path)
    path.write_bytes(data)
    assert is_ours(path)
    with Image.open(path) as ours:
        ours.load()
        kept = {"exif": ours.getexif(), "comment": ours.info.get("comment")}
        info = PngImagePlugin.PngInfo()
        for key, text in ours.info.items():
            if isinstance(text, str):
                info.add_text(key, text)
    image.putpixel((0, 0), (255, 255, 255))
    image.save(path, **{k: v for k, v in kept.items() if v}, pnginfo=info)
    assert b"lora_scene " in path.read_bytes(), "an editor that keeps what it does not know"
    assert not is_ours(path)
    at = len(data) * 2 // 3
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert not is_ours(path)


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", PIPE, "protected"])
def test_only_plain_files_are_replaced_even_by_force(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "a.toml", tmp_path / "other.toml"
    write_text(other, "x = 1\n")
    before = other.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "protected":
        write_text(path, "x = 1\n").chmod(0o444)
    else:
        path.symlink_to(other if kind == "link" else tmp_path / "nothing")
    for attempt in (lambda: write_text(path, "x = 2\n", force=True), lambda: check_file(path)):
        with pytest.raises(FileError, match=r"stands here|protected"):
            attempt()
    assert other.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.toml", "other.toml"]


@with_pipes
def test_a_pipe_where_something_of_ours_would_be_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.safetensors", "00001-0.png", LOCK):
        os.mkfifo(tmp_path / name)
    assert metadata_of(tmp_path / "a.safetensors") == {}
    assert prompt_in(tmp_path / "00001-0.png") == ""
    with pytest.raises(FileError, match="no plain file"), locked(tmp_path):
        pass


def test_a_device_is_refused() -> None:
    with pytest.raises(FileError, match=r"a device stands here|Windows does not hold"):
        check_file(os.devnull, force=True)


def test_no_link_below_the_root_is_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "embeddings").symlink_to(tmp_path / "theirs")
    with pytest.raises(FileError, match=r"embeddings: a symbolic link"):
        check_target(out, ["embeddings/a.toml"])
    with pytest.raises(FileError, match="symbolic link"):
        write_text(out / "embeddings" / "a.toml", "x = 1\n", root=out)
    with pytest.raises(FileError, match="symbolic link"), written_together(out) as aside:
        write_text(aside / "embeddings" / "a.toml", "x = 1\n")
    assert os.listdir(tmp_path / "theirs") == []
    assert os.listdir(out) == ["embeddings"]
    assert list(own_files(out)) == []


def test_a_root_that_is_itself_a_link_is_the_users_choice(tmp_path: Path) -> None:
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big_disk")
    write_text(check_target(tmp_path / "out", ["a.toml"]) / "a.toml", "x = 1\n")
    assert (tmp_path / "big_disk" / "a.toml").is_file()


def test_an_input_is_never_replaced_even_if_it_is_ours(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.toml", "x = 1\n")
    with pytest.raises(FileError, match="what is read"):
        check_file(tmp_path / "." / "a.toml", inputs=[path], force=True)


def test_a_target_is_checked_whole_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("mine")
    (tmp_path / "b.md").write_text("mine")
    with pytest.raises(FileError, match=r"(?s)2 problems.*a\.toml.*b\.md"):
        check_target(tmp_path, ["a.toml", "b.md", "c.md"])
    check_target(tmp_path / "new" / "deeper", ["a.toml"])
    assert sorted(os.listdir(tmp_path)) == ["a.toml", "b.md"]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("", "an empty path"),
        ("file", "not a folder"),
        ("file/deeper", "not a folder|is a file"),
        ("x" * 300, "the name is too long"),
        ("new/" + "y" * 300, "the name is too long"),
        pytest.param("/proc/nobody", "no such file|permission|refused|permit", marks=ON_LINUX),
        pytest.param("~nobody-of-that-name/out", "no such user's home", marks=ON_POSIX),
        ("~/out", "a ~ that no shell has replaced"),
    ],
)
def test_a_place_that_cannot_hold_files_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=words):
        check_target(folder, ["a.toml"])
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_half_way_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.toml", "x = 1\n")
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"a\.toml: the disk is full"), writing(path) as aside:
        _write_half(aside)
    with pytest.raises(KeyboardInterrupt), writing(path) as aside:
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.toml"]


def _write_half(path: Path) -> None:
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_real_limit_of_the_system_is_a_sentence(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows has none")
    code = (
        "import resource, pathlib, lora_scene.files as files;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "files.write_text(pathlib.Path('a.toml'), '# ' + 'x' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "FileError: a.toml: larger than a file may become here" in done.stderr
    assert os.listdir(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def _old_and_new(folder: Path) -> None:
    for name in ("a.toml", "b.toml", "c.toml"):
        write_text(folder / name, "x = 1\n")
    (folder / "mine.txt").write_text("mine")
    with written_together(folder, obsolete=["c.toml", "mine.txt"]) as aside:
        for name in ("a.toml", "b.toml", "d.toml"):
            write_text(aside / name, "x = 2\n")


def _versions(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text("utf-8")[4] for p in folder.glob("*.toml")}


def test_a_group_replaces_ours_and_leaves_what_is_not(tmp_path: Path) -> None:
    _old_and_new(tmp_path)
    assert _versions(tmp_path) == {"a.toml": "2", "b.toml": "2", "d.toml": "2"}
    assert sorted(os.listdir(tmp_path)) == ["a.toml", "b.toml", "d.toml", "mine.txt"]


@pytest.mark.parametrize("n_moves", range(6))
def test_a_group_that_fails_at_any_move_leaves_all_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_moves: int
) -> None:
    _fail_after(monkeypatch, n_moves, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(FileError, match="the disk failed"):
        _old_and_new(tmp_path)
    assert _versions(tmp_path) == {"a.toml": "1", "b.toml": "1", "c.toml": "1"}
    assert sorted(os.listdir(tmp_path)) == ["a.toml", "b.toml", "c.toml", "mine.txt"]


def _fail_after(monkeypatch: pytest.MonkeyPatch, n_moves: int, error: Exception) -> None:
    """Let one move within a group fail; the moves that put things back work again."""
    moves = iter(range(100))
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        is_move = "draft" not in str(source) and f"{os.sep}new{os.sep}" in f"{source} {target}"
        is_away = f"{os.sep}old{os.sep}" in str(target)
        if (is_away or (is_move and "-" not in Path(source).name)) and next(moves) == n_moves:
            raise error
        real(source, target)

    monkeypatch.setattr(file_groups.os, "replace", replace)


@pytest.mark.parametrize("n_moves", range(6))
def test_a_group_killed_at_any_move_is_taken_back_at_the_next_start(
    tmp_path: Path, n_moves: int
) -> None:
    code = f"""
import os, pathlib, lora_scene.file_groups as groups
from lora_scene.files import write_text
folder, real, moves = pathlib.Path('.'), os.replace, iter(range(100))
for name in ("a.toml", "b.toml", "c.toml"):
    write_text(folder / name, "x = 1\\n")
def replace(source, target):
    if next(moves) == {n_moves}:
        os._exit(9)
    real(source, target)
with groups.written_together(folder, obsolete=["c.toml"]) as aside:
    for name in ("a.toml", "b.toml", "d.toml"):
        write_text(aside / name, "x = 2\\n")
    os.replace = replace
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 9
    assert len(os.listdir(tmp_path)) > 2, "the debris of a killed process"
    check_target(tmp_path)
    assert _versions(tmp_path) == {"a.toml": "1", "b.toml": "1", "c.toml": "1"}
    assert sorted(os.listdir(tmp_path)) == ["a.toml", "b.toml", "c.toml"]


def test_only_debris_of_dead_processes_is_cleaned(tmp_path: Path) -> None:
    from lora_scene.folder_lock import process_record

    host, pid, start = process_record()
    ours = f".lora_scene-{host}-{pid}-{start}-00000000.part"
    dead = f".lora_scene-{host}-{DEAD}-{start}-00000000.part"
    reused = f".lora_scene-{host}-{pid}-{start - 1000}-00000000.part"
    elsewhere = f".lora_scene-00000000-{DEAD}-{start}-00000000.part"
    (tmp_path / "samples").mkdir()
    for name in (ours, dead, reused, elsewhere, f"samples/{dead}", ".lora_scene-notes.part"):
        (tmp_path / name).write_text("x")
    clean_up(tmp_path)
    left = {path.name for path in tmp_path.rglob("*")}
    assert left == {ours, elsewhere, "samples", ".lora_scene-notes.part"}


def test_what_another_host_left_unfinished_is_debris_once_it_is_old(tmp_path: Path) -> None:
    """As of a container that was killed: the next one has another name."""
    part = tmp_path / ".lora_scene-00000000-1-1-00000000.part"
    (part / "old").mkdir(parents=True)
    (part / "old" / "a.toml").write_text("x = 1")
    (part / "journal.json").write_text(json.dumps({"names": ["a.toml"], "gone": []}))
    lone = tmp_path / ".lora_scene-00000000-1-1-00000001.part"
    lone.write_text("half")
    check_target(tmp_path)
    assert part.exists(), "it may be at work"
    os.utime(part, (0, time.time() - 61))
    with locked(tmp_path):
        thread = threading.Thread(target=clean_up, args=(tmp_path,))
        thread.start()
        thread.join()
    assert part.exists(), "someone holds the folder"
    check_target(tmp_path)
    assert (tmp_path / "a.toml").read_text() == "x = 1", "given back at once"
    assert lone.exists(), "a file may take a day"
    os.utime(lone, (0, time.time() - 86_401))
    check_target(tmp_path)
    assert os.listdir(tmp_path) == ["a.toml"]


def test_debris_with_a_hostile_journal_reaches_nothing_outside(tmp_path: Path) -> None:
    from lora_scene.folder_lock import process_record

    victim = tmp_path / "victim"
    victim.write_text("theirs")
    out = tmp_path / "out"
    part = out / f".lora_scene-{process_record()[0]}-{DEAD}-1-00000000.part"
    part.mkdir(parents=True)
    names = ["../victim", str(victim)]
    (part / "journal.json").write_text(json.dumps({"names": names, "gone": []}))
    clean_up(out)
    assert victim.read_text() == "theirs"


def test_own_files_are_deleted_and_foreign_ones_and_their_folders_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_text(out / "samples" / "a.md", "a\n")
    write_text(out / "checkpoint" / "a.toml", "x = 1\n")
    (out / "checkpoint" / "notes.txt").write_text("mine")
    (out / "empty of mine").mkdir()
    remove_ours(out, own_files(out))
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == [
        "checkpoint",
        "checkpoint/notes.txt",
        "empty of mine",
    ]


def test_a_listing_makes_files_of_any_format_ours(tmp_path: Path) -> None:
    with written_together(tmp_path / "pipeline") as aside:
        (aside / "unet").mkdir()
        (aside / "unet" / "config.json").write_text('{"sample_size": 8}')
        write_json(aside / "lora_scene.json", list_folder(aside))
    config = tmp_path / "pipeline" / "unet" / "config.json"
    assert is_ours(config)
    config.write_text('{"sample_size": 9}')
    assert not is_ours(config)
    (tmp_path / "pipeline" / "mine.json").write_text("{}")
    names = [path.name for path in own_files(tmp_path)]
    assert names == ["lora_scene.json"]


def test_a_sealed_object_is_sealed_once(tmp_path: Path) -> None:
    assert seal_json(seal_json({"a": 1})) == seal_json({"a": 1})


def test_windows_not_found_of_a_long_path_is_told_as_too_long(monkeypatch) -> None:
    missing = FileNotFoundError(2, "The system cannot find the path specified")
    monkeypatch.setattr("lora_scene.faults.os.name", "nt")
    assert "the name is too long" in str(as_file_error(missing, "/" + "a" * 250))
    assert "no such file" in str(as_file_error(missing, "/a"))


def test_a_name_that_windows_would_change_is_refused_there_alone(monkeypatch, tmp_path) -> None:
    changed = ["out.", "my run ", "my run /a", "a../b", "CON", "nul.txt", "Com1 .png", "a:b", "a?"]
    for name in changed:
        assert check_target(tmp_path / name)
    monkeypatch.setattr("lora_scene.targets.IS_WINDOWS", True)
    for name in changed:
        for check in (check_target, check_file):
            with pytest.raises(FileError, match="a name that Windows does not hold"):
                check(tmp_path / name)
    for name in ("a.b", ".hidden", "my run/x", "console", "../x"):
        assert check_target(tmp_path / name)
    refuse_names(PureWindowsPath("C:\\Users\\me\\..\\out"))


def test_errors_of_libraries_are_sentences_too() -> None:
    rust = RuntimeError("Error while serializing: I/O error: No space left (os error 28)")
    assert "the disk is full" in str(as_file_error(rust, "out"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes"))
    for words in ("could not create a primitive", "can't start new thread"):
        wrapped = FileError("the base cannot be loaded: it is damaged")
        wrapped.__context__ = OSError("Unable to load weights")  # as libraries word it
        wrapped.__context__.__context__ = RuntimeError(words)
        assert is_out_of_memory(wrapped), "before the words of what it led to"
    ring = ValueError("first"), ValueError("second")
    ring[0].__cause__, ring[1].__cause__ = ring[1], ring[0]
    assert not is_out_of_memory(ring[0])


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells what a process maps")
def test_no_mapped_file_is_replaced_as_windows_would_not(tmp_path: Path) -> None:
    """The whole suite holds it: of resumed runs, pipelines, merges, picks and downloads."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"x": torch.ones(9000)}))
    kept = load_file(path)
    with pytest.raises(RuntimeError, match="is mapped"), writing(path, force=True) as aside:
        aside.write_bytes(b"new")
    del kept
    with writing(path, force=True) as aside:
        aside.write_bytes(b"new")
    assert path.read_bytes() == b"new"
