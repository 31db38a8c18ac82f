"""Label Studio's tasks, decoded as its own converter does, give the label map again."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tests.formats.scenes import CLASSES, SCENES, known
from unpool.formats.label_studio import labeling_config, local_file, merged, to_label_studio
from unpool.formats.objects import find_objects
from unpool.vision.images import voc_palette


def plain_decode(code):
    """All values of a code, bit by bit, after the description of the format (rle-pack)."""
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        same = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if same else [read(word) for _ in range(length)]
    assert len(values) == total
    return np.array(values)


@pytest.mark.parametrize("labels", SCENES.values(), ids=SCENES.keys())
def test_each_pixel_is_kept(labels):
    task = to_label_studio(find_objects(labels, CLASSES), "https://example.com/a.jpg")
    found = np.zeros(labels.shape, np.uint8)
    [prediction] = json.loads(json.dumps(task))["predictions"]
    for region in prediction["result"]:
        assert (region["original_height"], region["original_width"]) == labels.shape
        assert (region["type"], region["image_rotation"]) == ("brushlabels", 0)
        [name] = region["value"]["brushlabels"]
        values = plain_decode(region["value"]["rle"]).reshape(*labels.shape, 4)
        assert (values == values[:, :, 3:]).all()
        found[values[:, :, 3] > 127] = CLASSES.index(name)
    assert (found == known(labels)).all()
    ids = [region["id"] for region in prediction["result"]]
    assert len(set(ids)) == len(ids)


def test_scores():
    labels, probabilities = np.array([[1, 0, 2]]), np.full((4, 1, 3), 0.25)
    probabilities[1] = 0.75
    [found] = to_label_studio(find_objects(labels, CLASSES, probabilities), "a")["predictions"]
    assert [region["score"] for region in found["result"]] == [0.75, 0.25]
    assert found["score"] == 0.5
    [found] = to_label_studio(find_objects(labels, CLASSES), "a")["predictions"]
    assert "score" not in found
    assert not any("score" in region for region in found["result"])


def test_the_config_names_what_the_predictions_use():
    names = ["background", 'the "best" <cat>', "dog & co"]
    view = ET.fromstring(labeling_config(names))
    image, brush = view
    task = to_label_studio(find_objects(np.array([[1, 2]]), names), "a.jpg")
    [prediction] = task["predictions"]
    assert task["data"] == {image.get("value").removeprefix("$"): "a.jpg"}
    for region in prediction["result"]:
        assert region["to_name"] == image.get("name") == brush.get("toName")
        assert region["from_name"] == brush.get("name")
    assert [label.get("value") for label in brush] == names[1:]
    colors = [bytes(color).hex() for color in voc_palette()[1:3]]
    assert [label.get("background") for label in brush] == [f"#{color}" for color in colors]


def test_many_tasks():
    tasks = [to_label_studio(find_objects(np.array([[k]]), CLASSES), f"{k}") for k in (1, 0, 2)]
    assert json.loads("".join(merged(tasks))) == tasks
    assert json.loads("".join(merged([]))) == []


def test_addresses_of_odd_names():
    assert local_file("a/ü & b#1?.jpg") == "/data/local-files/?d=a/%C3%BC%20%26%20b%231%3F.jpg"
    assert local_file("\udcff.jpg") == "/data/local-files/?d=%FF.jpg"
