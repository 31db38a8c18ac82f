"""`unpool segment --format`: files of other tools, beside and across images."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.cli.files import CLASSES, photo, results, save
from unpool.vision.images import read_mask

ALL = "mask,coco,labelme,yolo,geojson,labelstudio"


def shown(folder):
    """The results that are not hidden."""
    return {name for name in results(folder) if not name.startswith(".unpool/")}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_formats_of_other_tools(run, weights):
    save("in/a/cat.jpg", photo(seed=1))
    save("in/dog.png", photo(48, 32, seed=2))
    Path("in/dog.pgw").write_text("2 0 0 -2 101 499")
    Path("in/broken.jpg").touch()
    options = ["--weights", weights, "--presence-threshold", 0, "--no-overlay"]
    code, out, _ = run("segment", "in", "-o", "out", *options, "--format", ALL, "--json")
    assert code == 3
    assert shown("out") == {
        *(f"{name}{end}" for name in ("a/cat", "dog") for end in (".png", ".json", ".txt")),
        *("a/cat.geojson", "dog.geojson", "annotations.coco.json", "data.yaml"),
        *("label_studio.json", "label_studio.xml", "labels.txt"),
    }
    parts = {f"{n}.{k}.json" for n in ("a/cat", "dog") for k in ("coco", "labelstudio")}
    assert results("out/.unpool/parts") == parts
    record = next(r for r in map(json.loads, out) if r["source"] == "in/a/cat.jpg")
    for key, end in {"mask": "png", "labelme": "json", "yolo": "txt", "geojson": "geojson"}.items():
        assert record[key] == f"out/a/cat.{end}"
    coco = json.loads(Path("out/annotations.coco.json").read_text())
    assert [i["file_name"] for i in coco["images"]] == ["a/cat.jpg", "dog.png"]
    assert [c["name"] for c in coco["categories"]] == CLASSES[1:]
    masks = {image["id"]: np.zeros((image["height"], image["width"])) for image in coco["images"]}
    for entry in coco["annotations"]:
        mask = coco_mask.decode(entry["segmentation"])
        masks[entry["image_id"]][mask > 0] = entry["category_id"]
        assert 0 < entry["score"] <= 1
    assert (masks[1] == read_mask("out/a/cat.png")).all()
    assert (masks[2] == read_mask("out/dog.png")).all()
    labelme = json.loads(Path("out/a/cat.json").read_text())
    assert (Path("out/a") / labelme["imagePath"]).resolve() == Path("in/a/cat.jpg").resolve()
    assert "dog.pgw" in json.loads(Path("out/dog.geojson").read_text())["coordinate_system"]
    tasks = json.loads(Path("out/label_studio.json").read_text())
    assert [t["data"]["image"].split("=")[1] for t in tasks] == ["in/a/cat.jpg", "in/dog.png"]


def test_what_other_formats_say_of_an_image_is_kept_up(run, weights):
    """Its place on a map, and its path, which its content does not have."""
    save("in/dog.png")
    args = ["segment", "--weights", weights, "-o", "out", "--presence-threshold", 0, "--json"]

    def skipped(folder, formats="geojson,labelme"):
        code, out, _ = run(*args, folder, "--format", formats)
        assert code == 0
        return json.loads(out[0]).get("skipped", False)

    assert [skipped("in") for _ in range(2)] == [False, True]
    Path("in/dog.pgw").write_text("2 0 0 -2 101 499")
    assert [skipped("in") for _ in range(2)] == [False, True]
    assert "dog.pgw" in json.loads(Path("out/dog.geojson").read_text())["coordinate_system"]
    Path("in").rename("moved")
    assert [skipped("moved") for _ in range(2)] == [False, True]
    labelme = json.loads(Path("out/dog.json").read_text())
    assert (Path("out") / labelme["imagePath"]).resolve() == Path("moved/dog.png").resolve()
    Path("moved").rename("in")
    assert [skipped("in", "mask") for _ in range(2)] == [False, True]
    Path("in").rename("moved")
    assert skipped("moved", "mask")  # masks name no image


def test_simplified_polygons(run, weights):
    save("cat.jpg")
    options = ["--weights", weights, "--presence-threshold", 0, "--format", "yolo"]
    sizes = []
    for pixels in (0, 3):
        assert run("segment", "cat.jpg", "-o", "out", *options, "--tolerance", pixels)[0] == 0
        sizes.append(Path("out/cat.txt").stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("pixels", ["nan", "inf"])
def test_a_tolerance_that_is_no_number_of_pixels(refused, pixels):
    save("cat.jpg")
    message = refused("segment", "cat.jpg", "--format", "yolo", "--tolerance", pixels)
    assert f"got --tolerance {pixels}; wanted 0 or more pixels" in message


def test_unknown_formats_are_refused(refused):
    save("cat.jpg")
    message = refused("segment", "cat.jpg", "--format", "mask,cocoo")
    assert "got 'cocoo'; did you mean 'coco'? The choices are mask, coco," in message
    assert "got ''" in refused("segment", "cat.jpg", "--format", ",")


def test_files_of_formats_replace_no_input_and_not_one_another(refused, weights):
    save("photos.jpg")
    Path("photos.txt").write_text("photos.jpg\n")
    options = ["--weights", weights, "-o", "."]
    message = refused("segment", "photos.txt", *options, "--format", "yolo")
    assert "got the output photos.txt, which would overwrite the input photos.txt" in message
    assert Path("photos.txt").read_text() == "photos.jpg\n"
    save("label_studio.jpg")
    message = refused("segment", "label_studio.jpg", *options, "--format", "labelme,labelstudio")
    assert "got an image whose result would be label_studio.json, the file of all images" in message


def test_images_of_one_name_are_named_by_their_paths(run, weights):
    save("first/cat.jpg", photo(seed=1))
    save("second/cat.jpg", photo(seed=2))
    save("second/dog.jpg", photo(seed=3))
    options = ["--weights", weights, "--format", "coco", "--quiet"]
    assert run("segment", "first", "second", "-o", "out", *options)[0] == 0
    coco = json.loads(Path("out/annotations.coco.json").read_text())
    names = [image["file_name"] for image in coco["images"]]
    assert names == ["first/cat.jpg", "second/cat.jpg", "dog.jpg"]


def test_files_of_all_images_hold_those_of_an_earlier_run(run, weights):
    for i in range(3):
        save(f"in/{i}.jpg", photo(seed=i))
    Path("in/1.jpg").write_bytes(b"broken")
    options = ["--weights", weights, "--format", "coco,labelstudio", "--no-overlay", "--quiet"]
    names = ("annotations.coco.json", "label_studio.json")
    assert run("segment", "in", "-o", "out", *options)[0] == 3
    coco = json.loads(Path("out", names[0]).read_text())
    assert [image["file_name"] for image in coco["images"]] == ["0.jpg", "2.jpg"]
    save("in/1.jpg", photo(seed=1))
    assert run("segment", "in", "-o", "out", *options)[0] == 0
    assert run("segment", "in", "-o", "new", *options)[0] == 0
    for name in names:
        assert Path("out", name).read_text() == Path("new", name).read_text()
    Path("in/2.jpg").write_bytes(b"broken")
    assert run("segment", "in", "-o", "out", *options)[0] == 3
    coco = json.loads(Path("out", names[0]).read_text())
    assert [image["file_name"] for image in coco["images"]] == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("key", "name"), [("labelme", "cat.json"), ("yolo", "cat.txt"), ("yolo", "data.yaml")]
)
def test_annotations_made_by_hand_are_kept(run, refused, weights, key, name):
    save("photos/cat.jpg")
    Path("photos", name).write_text("made by hand")
    command = ["segment", "photos/cat.jpg", "-o", "photos", "--weights", weights, "--format", key]
    message = refused(*command)
    assert f"got the output photos/{name}, which exists and is not by unpool; move it" in message
    assert Path("photos", name).read_text() == "made by hand"
    Path("photos", name).unlink()
    for _ in range(2):
        assert run(*command)[0] == 0


def test_the_mask_may_be_left_out(run, weights):
    save("cat.jpg")
    options = ["--weights", weights, "--format", "YOLO, label-studio", "--json"]
    code, out, err = run("segment", "cat.jpg", "-o", "out", *options)
    assert (code, err) == (0, [])
    names = {"cat.txt", "cat.overlay.jpg", "data.yaml", "label_studio.json", "label_studio.xml"}
    assert shown("out") == names
    record = json.loads(out[0])
    assert "mask" not in record
    assert record["yolo"] == "out/cat.txt"
