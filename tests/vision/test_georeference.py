"""World files and the tags of GeoTIFF, with the numbers of their definitions."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from unpool.errors import ImageError
from unpool.vision.georeference import PIXELS, read_georeference

WORLD = "60.0\n0.0\n0.0\n-60.0\n440750.0\n3751290.0\n"  # the example of GDAL's page


def image(path, **options):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, **options)
    return path


def tiff(path, tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in tags.items():
        info.tagtype[tag] = 2 if isinstance(values, str) else 3 if tag == 34735 else 12
        info[tag] = values if isinstance(values, str) else tuple(values)
    return image(path, tiffinfo=info)


@pytest.mark.parametrize(
    ("name", "world"),
    [
        ("a.jpg", "a.jgw"),
        ("a.jpeg", "a.jgw"),
        ("a.jpg", "a.JGW"),
        ("a.jpg", "a.jpgw"),
        ("a.png", "a.pgw"),
        ("a.PNG", "a.pgw"),
        ("a.tif", "a.tfw"),
        ("a.tiff", "a.tfw"),
        ("a.png", "a.wld"),
        ("a.b.png", "a.b.pgw"),
    ],
)
def test_world_files(tmp_path, name, world):
    path = image(tmp_path / name)
    assert read_georeference(path) == PIXELS
    (tmp_path / world).write_text(WORLD)
    found = read_georeference(path)
    # numbers are those of the center of the first pixel, 60 units wide
    assert found.transform == (60, 0, 440720, 0, -60, 3751320)
    assert world in found.system
    assert found.epsg is None


def test_a_turned_world_file(tmp_path):
    path = image(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text("1 2 3 4 100 200")
    a, b, c, d, e, f = read_georeference(path).transform
    assert (a * 0.5 + b * 0.5 + c, d * 0.5 + e * 0.5 + f) == (100, 200), "center of the first"
    assert (a * 1.5 + b * 0.5 + c, d * 1.5 + e * 0.5 + f) == (101, 202), "one column on"
    assert (a * 0.5 + b * 1.5 + c, d * 0.5 + e * 1.5 + f) == (103, 204), "one row on"


@pytest.mark.parametrize(
    "text", ["", "1 2 3", "1 0 0 1 0 nan", "0 0 0 0 5 5", "1 1 1 1 0 0", "a b c d e f", "1 " * 7]
)
def test_damaged_world_files(tmp_path, text):
    path = image(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(text)
    with pytest.raises(ImageError, match="wanted six numbers that span a plane"):
        read_georeference(path)


def test_a_large_world_file_is_not_read(tmp_path):
    path = image(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(WORLD * 1000)
    with pytest.raises(ImageError, match="more than 4,096 bytes"):
        read_georeference(path)


TAGS = {33550: (10, 10, 0), 33922: (0, 0, 0, 500000, 4600000, 0)}
AREA, POINT = ((1, 1, 0, 2, 1025, 0, 1, kind, 3072, 0, 1, 32633) for kind in (1, 2))


def test_tags_of_geotiff(tmp_path):
    found = read_georeference(tiff(tmp_path / "a.tif", {**TAGS, 34735: AREA}))
    assert found == ((10, 0, 500000, 0, -10, 4600000), "EPSG:32633", 32633)
    found = read_georeference(tiff(tmp_path / "a.tif", {**TAGS, 34735: POINT}))
    assert found.transform == (10, 0, 499995, 0, -10, 4600005)
    found = read_georeference(tiff(tmp_path / "a.tif", TAGS))
    assert (found.epsg, found.system) == (
        None,
        "map units, of a system that the file does not name",
    )
    inner = {**TAGS, 33922: (2, 3, 0, 500000, 4600000, 0)}
    found = read_georeference(tiff(tmp_path / "a.tif", inner))
    assert found.transform == (10, 0, 499980, 0, -10, 4600030)


def test_a_matrix_in_a_geotiff(tmp_path):
    matrix = (1, 2, 0, 100, 3, -4, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1)
    keys = (1, 1, 0, 1, 2048, 0, 1, 4326)
    found = read_georeference(tiff(tmp_path / "a.tif", {34264: matrix, 34735: keys}))
    assert found == ((1, 2, 100, 3, -4, 200), "EPSG:4326", 4326)


def test_tags_come_before_a_world_file(tmp_path):
    path = tiff(tmp_path / "a.tif", TAGS)
    (tmp_path / "a.tfw").write_text(WORLD)
    assert read_georeference(path).transform[2] == 500000


def test_own_systems_have_no_code(tmp_path):
    keys = (1, 1, 0, 1, 3072, 0, 1, 32767)
    assert read_georeference(tiff(tmp_path / "a.tif", {**TAGS, 34735: keys})).epsg is None


def test_an_image_that_exif_turns_has_no_place(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = image(tmp_path / "a.jpg", exif=exif)
    assert read_georeference(path) == PIXELS
    (tmp_path / "a.jgw").write_text(WORLD)
    found = read_georeference(path)
    assert found.transform == PIXELS.transform
    assert found.system.endswith("since EXIF turns a.jpg")


def test_no_file():
    assert read_georeference(None) == PIXELS


def test_tags_of_another_type(tmp_path):
    path = tiff(tmp_path / "a.tif", {**TAGS, 33922: "abcdefg"})
    with pytest.raises(ImageError, match="whose georeference is damaged"):
        read_georeference(path)
