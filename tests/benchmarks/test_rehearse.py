"""The rehearsal's bases are made once, and whatever is missing of them is made."""

from __future__ import annotations

from pathlib import Path

from benchmarks import rehearse


class Pipeline:
    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "model_index.json").write_text("{}")


def test_a_single_file_that_is_missing_beside_the_folder_is_made(tmp_path, monkeypatch) -> None:
    built = []
    monkeypatch.setattr(
        rehearse, "build_full_size", lambda name, dtype: built.append(name) or Pipeline()
    )
    monkeypatch.setattr(rehearse.ldm, "write", lambda pipeline, path: path.write_text("one"))
    folder, single = rehearse.make_base("sd15", tmp_path, is_single=False)
    assert (folder.name, single) == ("sd15", None)
    for _ in range(2):
        _, single = rehearse.make_base("sd15", tmp_path, is_single=True)
        assert single.read_text() == "one"
    assert built == ["sd15", "sd15"]
    assert rehearse.make_base("sdxl", tmp_path, is_single=True)[1] is None
