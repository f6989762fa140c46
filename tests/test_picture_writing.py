from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import FileError
from lora_scene.files import write_bytes
from lora_scene.ownership import is_ours
from lora_scene.picture_writing import MOST_SIDE, check_sides, encode_gif, write_picture

RED = Image.new("RGB", (8, 6), "red")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_a_picture_has_the_format_of_its_name_and_is_replaced_by_us_alone(tmp_path, suffix):
    path = write_picture(tmp_path / f"a{suffix}", RED)
    kind = {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG")
    with Image.open(path) as image:
        assert image.format == kind
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - [255, 0, 0]).max() <= 3
    assert is_ours(path)
    write_picture(path, RED)
    RED.save(path, format=kind)
    with pytest.raises(FileError, match="did not write"):
        write_picture(path, RED)


def test_a_gif_is_ours_and_no_other_format_is_guessed(tmp_path):
    frames = [RED, Image.new("RGB", (8, 6), "blue")]
    path = write_bytes(tmp_path / "a.gif", encode_gif(frames, milliseconds=50))
    assert is_ours(path)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["duration"]) == (2, 50)
    with pytest.raises(FileError, match="no format of pictures"):
        write_picture(tmp_path / "a.bmp", RED)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_record_that_reads_like_the_mark_is_kept_to_the_letter(tmp_path, suffix):
    text = " ".join(f"lora_scene {n:016x}" for n in range(3))
    path = write_picture(tmp_path / f"a{suffix}", RED, {"lora_scene": text})
    assert is_ours(path)
    with Image.open(path) as image:
        assert text in (image.info.get("lora_scene"), image.getexif().get(0x010E))


@pytest.mark.parametrize(("suffix", "kind"), [(".webp", "WEBP"), (".jpg", "JPEG")])
@pytest.mark.parametrize("turn", [1, -1])
def test_sides_are_refused_that_the_encoder_itself_does_not_write(tmp_path, suffix, kind, turn):
    path, most = tmp_path / f"a{suffix}", MOST_SIDE[kind]
    check_sides(path, *(most, 1)[::turn])
    Image.new("RGB", (most, 1)[::turn]).save(path)
    with pytest.raises(FileError, match=rf"at most {most} pixels(.|\n)*write a .png"):
        check_sides(path, *(most + 1, 1)[::turn])
    with pytest.raises((OSError, ValueError)):
        Image.new("RGB", (most + 1, 1)[::turn]).save(path)
    check_sides(tmp_path / "a.png", 10**6, 1)
