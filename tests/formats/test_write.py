"""The files of a folder: which there are, what they hold, and what an earlier run left."""

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from tests.formats.scenes import CLASSES, SCENES
from unpool.errors import DataError
from unpool.formats.coco import to_coco
from unpool.formats.geojson import to_geojson
from unpool.formats.label_studio import labeling_config, local_file, to_label_studio
from unpool.formats.labelme import to_labelme
from unpool.formats.objects import find_objects
from unpool.formats.write import folder_files, forget_image, image_files, write_folder, write_image
from unpool.formats.yolo import data_yaml, to_yolo
from unpool.recipes.presets import RESULTS

OBJECTS = find_objects(SCENES["rings"], CLASSES)


def write(output, name, formats=RESULTS, image=None):
    return write_image(output, PurePosixPath(name), formats, OBJECTS, image, f"{name}.jpg")


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_each_format_has_its_file(tmp_path):
    image = tmp_path / "photos/a/cat.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (80, 60)).save(image)
    (image.with_suffix(".pgw")).write_text("2 0 0 -2 1 -1")
    output = tmp_path / "out"
    found = write(output, "a/cat", image=image)
    assert found == {
        "labelme": str(output / "a/cat.json"),
        "yolo": str(output / "a/cat.txt"),
        "geojson": str(output / "a/cat.geojson"),
    }
    labelme = json.loads((output / "a/cat.json").read_text())
    assert labelme == to_labelme(OBJECTS, "../../photos/a/cat.png")
    assert (output / "a" / labelme["imagePath"]).resolve() == image.resolve()
    assert (output / "a/cat.txt").read_text() == to_yolo(OBJECTS)
    geojson = json.loads((output / "a/cat.geojson").read_text())
    assert "cat.pgw" in geojson["coordinate_system"]
    plain = json.loads(json.dumps(to_geojson(OBJECTS)))
    assert [f["properties"] for f in geojson["features"]] == [
        f["properties"] for f in plain["features"]
    ]
    written = write_folder(output, [PurePosixPath("a/cat")], RESULTS, CLASSES)
    assert written == folder_files(output, RESULTS)
    assert json.loads((output / "annotations.coco.json").read_text()) == to_coco(
        OBJECTS, "a/cat.jpg"
    )
    assert json.loads((output / "label_studio.json").read_text()) == [
        to_label_studio(OBJECTS, local_file("photos/a/cat.png"))
    ]
    assert (output / "label_studio.xml").read_text() == labeling_config(CLASSES)
    assert (output / "data.yaml").read_text() == data_yaml(CLASSES)
    assert (output / "labels.txt").read_text() == "cat\ndog\nowl\n"


@pytest.mark.parametrize("key", RESULTS)
def test_only_what_was_asked_for(tmp_path, key):
    write(tmp_path, "cat", [key])
    write_folder(tmp_path, [PurePosixPath("cat")], [key], CLASSES)
    expected = {p.name for p in (*image_files(Path("cat"), [key]), *folder_files(tmp_path, [key]))}
    parts = {
        ".unpool/parts/cat.coco.json": "coco",
        ".unpool/parts/cat.labelstudio.json": "labelstudio",
    }
    assert files(tmp_path) == expected | {part for part, owner in parts.items() if owner == key}


def test_images_of_an_earlier_run_are_there_and_failed_ones_are_not(tmp_path):
    names = [PurePosixPath(name) for name in ("a", "b", "c")]
    for name in names:
        write(tmp_path, name, ["coco"])
    forget_image(tmp_path, names[1])  # worked on again, and failed
    write_folder(tmp_path, names, ["coco"], CLASSES)
    found = json.loads((tmp_path / "annotations.coco.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["a.jpg", "c.jpg"]
    forget_image(tmp_path, names[1])


def test_no_image_gives_files_without_any(tmp_path):
    write_folder(tmp_path, [], RESULTS, CLASSES)
    assert json.loads((tmp_path / "annotations.coco.json").read_text())["images"] == []
    assert json.loads((tmp_path / "label_studio.json").read_text()) == []


@pytest.mark.parametrize("text", ["[]", "7", "{", '{"images": 7}', '{"annotations": [7]}'])
def test_a_damaged_part_is_named(tmp_path, text):
    write(tmp_path, "cat", ["coco"])
    part = tmp_path / ".unpool/parts/cat.coco.json"
    part.write_text(text)
    with pytest.raises(DataError, match=r"cat\.coco\.json"):
        write_folder(tmp_path, [PurePosixPath("cat")], ["coco"], CLASSES)
    assert not (tmp_path / "annotations.coco.json").exists()


def test_polygons_are_simplified_on_request(tmp_path):
    y, x = np.mgrid[:60, :80]
    disk = find_objects((np.hypot(x - 40, y - 30) < 25).astype(np.uint8), CLASSES)
    sizes = []
    for tolerance in (0.0, 2.0):
        write_image(tmp_path, PurePosixPath("a"), RESULTS, disk, None, "a.jpg", tolerance)
        sizes.append([path.stat().st_size for path in image_files(tmp_path / "a", RESULTS)])
    assert all(simple < exact / 2 for exact, simple in zip(*sizes, strict=True))
    assert json.loads((tmp_path / "a.json").read_text())["imagePath"] == "a.jpg"
