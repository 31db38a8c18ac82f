"""Files that models name: where they are found, and how they are decoded."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpool.errors import DataError
from unpool.rendering import textures
from unpool.rendering.textures import Folder, Textures


def encode(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("model/oak.png", "model/maps/Pine.JPG", "model/my wood.png", "secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(Image.new("RGB", (2, 1), (1, 2, 3))))
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("oak.png", "oak.png"),
        (" OAK.Png ", "oak.png"),
        ("./oak.png", "oak.png"),
        (".\\oak.png", "oak.png"),
        ("maps\\Pine.JPG", "maps/Pine.JPG"),
        ("Maps/pine.jpg", "maps/Pine.JPG"),
        ('"my wood.png"', "my wood.png"),
        ("C:\\Users\\ann\\oak.png", "oak.png"),
        ("C:\\chair\\maps\\pine.jpg", "maps/Pine.JPG"),
        ("\\\\server\\share\\oak.png", "oak.png"),
        ("/home/ann/oak.png", "oak.png"),
        ("../secret.png", None),
        ("maps/../../secret.png", None),
        ("maps", None),
        ("oak.png/x", None),
        ("pine.jpg", None),
        ("", None),
        ("a\0b", None),
        ("x" * 5000, None),
        ("\ud800", None),
    ],
)
def test_names_as_programs_write_them(folder, name, found):
    assert Folder(folder).find(name) == (found and folder / found)


def test_the_exact_name_comes_first_and_doubtful_ones_are_not_guessed(folder):
    (folder / "OAK.png").touch()
    assert Folder(folder).find("OAK.png").name == "OAK.png"
    assert Folder(folder).find("oak.png").name == "oak.png"
    assert Folder(folder).find("Oak.png") is None


def test_accents_are_found_however_they_are_composed(folder):
    (folder / "cafe\u0301.png").touch()
    assert Folder(folder).find("caf\xe9.png") == folder / "cafe\u0301.png"


def test_links_and_pipes_lead_nowhere(folder):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    os.mkfifo(folder / "pipe.png")
    assert Folder(folder).find("link.png") is None
    assert Folder(folder).find("pipe.png") is None


def test_each_texture_is_decoded_once(folder):
    read = Textures(Folder(folder))
    (folder / "broken.png").write_bytes(b"\x89PNG")
    assert [
        read.read(n) for n in ("oak.png", "no.png", "my wood.png", "broken.png", "oak.png")
    ] == [0, -1, 1, -1, 0]
    assert read.missing == ["no.png", "broken.png"]
    assert [image.tolist() for image in read.images] == [[[[1, 2, 3]] * 2]] * 2


def test_colors_under_transparent_pixels_are_kept(folder):
    read = Textures(Folder(folder))
    read.read("clear", lambda: encode(Image.new("RGBA", (1, 1), (9, 8, 7, 0))))
    read.read("full", lambda: encode(Image.new("RGBA", (1, 1), (9, 8, 7, 255))))
    assert [image.tolist() for image in read.images] == [[[[9, 8, 7]]]] * 2
    assert read.transparent == ["clear"]


def test_16_bits_are_read_by_their_high_byte():
    read = Textures(Folder(Path()))
    deep = Image.fromarray(np.array([[0x1234, 0xFF00]], np.uint16))
    read.read("deep", lambda: encode(deep))
    assert read.images[0][0, :, 0].tolist() == [0x12, 0xFF]


@pytest.mark.parametrize("text", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"", b"P"])
def test_no_other_formats_are_decoded(folder, monkeypatch, text):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    (folder / "oak.png").write_bytes(text)
    assert Textures(Folder(folder)).read("oak.png") == -1


def test_large_textures(folder, monkeypatch):
    monkeypatch.setattr(textures, "MAX_TEXTURES_READ", 1000)
    monkeypatch.setattr(textures, "MAX_TEXTURE_PIXELS", 200)
    read = Textures(Folder(folder))
    checks = Image.fromarray(np.tile(np.uint8([[0, 200], [200, 0]]), (10, 10)))
    read.read("small", lambda: encode(Image.new("RGB", (5, 5), (1, 2, 3))))
    read.read("checks", lambda: encode(checks))
    assert [image.shape for image in read.images] == [(5, 5, 3), (10, 10, 3)]
    assert (read.images[1] == 100).all()  # halved by area
    assert read.read("big", lambda: encode(Image.new("RGB", (30, 20)))) == -1
    assert read.missing == ["big"]
    monkeypatch.setattr(textures, "MAX_TEXTURE_BYTES", 1000)
    with pytest.raises(DataError, match="has more than 2,000 textures or 1,000 bytes of them"):
        read.read("more", lambda: bytes(1000))
