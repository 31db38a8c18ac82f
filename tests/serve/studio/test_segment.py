"""Results over HTTP: the bytes of the command line and of Python."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import unpool
from tests.cli.files import photo
from tests.serve.test_applications import command, flags
from unpool.segment.postprocessing import postprocess
from unpool.serve.studio.segment import strongest
from unpool.vision.images import read_image, read_mask


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    photo(100, 70).save(path)
    return path


def segment(studio, image, **options):
    """The events of a job, and the facts of its result."""
    answer = studio.post(f"/api/images/{image}/segment", params=options)
    if answer.status_code == 200:
        return [], answer.json()["result"]
    assert answer.status_code == 202, answer.text
    text = studio.get(f"/api/jobs/{answer.json()['job']}/events").text
    events = [
        (part.split("\n")[1].removeprefix("event: "), json.loads(part.partition("data: ")[2]))
        for part in text.split("\n\n")[:-1]
        if not part.startswith(":")  # a comment, of a connection that was silent
    ]
    assert events[-1][0] == "done", events[-1]
    return events, events[-1][1]


@pytest.fixture(scope="module")
def image(studio, path):
    return studio.post("/api/images?name=cat.png", content=path.read_bytes()).json()["id"]


OPTIONS = [
    {},
    {"crf": "densecrf"},
    {"presence-threshold": 0.4},
    {"mode": "instance", "proposals": 3, "preset": "reference"},
    {"mode": "instance", "proposals": 5, "aggregate": "mean", "method": "grid"},
    {"mode": "tiles", "tile": 32, "overlap": 8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_truth(studio, calls, weights, path, image, options, tmp_path):
    files = command(
        tmp_path, "segment", path, "--weights", weights, "--precision", "fp32",
        "--format", "mask,coco", *flags(options),
    )  # fmt: skip
    _, facts = segment(studio, image, **options)
    file = lambda name: studio.get(f"/api/results/{facts['id']}/{name}").content  # noqa: E731
    assert file("mask.png") == files["cat.png"]
    assert file("overlay.jpg") == files["cat.overlay.jpg"]
    assert file("coco.json") == files["annotations.coco.json"]

    given = {name.replace("-", "_"): value for name, value in options.items()}
    result = unpool.load(weights, precision="fp32")(path, **given)
    with Image.open(io.BytesIO(file("ids.png"))) as ids:
        assert ids.mode == "L"  # a palette would come back as colors
        assert np.array_equal(np.asarray(ids), result.labels)
    assert np.array_equal(read_mask(io.BytesIO(file("mask.png"))), result.labels)
    planes = np.frombuffer(file("scores.bin"), np.uint8).reshape(-1, *result.labels.shape)
    expected = np.rint(255 * result.probabilities[facts["scores"]])
    assert np.array_equal(planes, expected)
    assert facts["boxes"] == result.boxes.tolist()
    assert facts["labels"] == result.fractions()

    served = calls.post(
        "/v1/segment", content=path.read_bytes(), params={**options, "format": "json"}
    ).json()
    about = json.loads(file("json"))
    assert {**about, "seconds": 0} == {**served, "seconds": 0}


def test_other_formats(studio, image, tmp_path, path, weights):
    formats = "mask,labelme,yolo,geojson"
    files = command(
        tmp_path, "segment", path, "--weights", weights, "--precision", "fp32", "--format", formats
    )
    _, facts = segment(studio, image)
    file = lambda name: studio.get(f"/api/results/{facts['id']}/{name}").content  # noqa: E731
    assert file("yolo.txt") == files["cat.txt"]
    assert file("geojson") == files["cat.geojson"]
    assert json.loads(file("labelme.json"))["shapes"] == json.loads(files["cat.json"])["shapes"]
    saved = studio.get(f"/api/results/{facts['id']}/mask.png?download=my%20cat/../x")
    assert saved.headers["content-disposition"] == 'attachment; filename="mycatx.mask.png"'
    assert studio.get(f"/api/results/{facts['id']}/secret").status_code == 404


def test_proposals_are_known_before_they_are_segmented(studio, image):
    events, facts = segment(studio, image, mode="instance", proposals=7)
    names = [name for name, _ in events]
    assert names[:2] == ["queued", "boxes"]
    assert events[1][1] == facts["boxes"]
    done = [values["done"] for name, values in events if name == "progress"]
    assert done == sorted(done)
    assert done[-1] == len(facts["boxes"])


def test_a_result_is_made_once(studio, image):
    _, facts = segment(studio, image, crf="densecrf")
    again, same = segment(studio, image, crf="densecrf")
    assert (again, same["id"]) == ([], facts["id"])
    assert studio.get(f"/api/results/{facts['id']}").json() == facts


def test_a_class_is_cut_out(studio, image, path):
    _, facts = segment(studio, image)
    labels = read_mask(io.BytesIO(studio.get(f"/api/results/{facts['id']}/mask.png").content))
    k = int(labels[10, 10])
    content = studio.get(f"/api/results/{facts['id']}/cutout-{k}.png").content
    cut = np.asarray(Image.open(io.BytesIO(content)))
    rows, columns = np.nonzero(labels == k)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    assert np.array_equal(cut[..., :3], read_image(path)[box])
    assert np.array_equal(cut[..., 3] > 0, labels[box] == k)
    for name in ("cutout-99.png", "cutout-x.png", "cutout--1.png", "cutout-1"):
        assert studio.get(f"/api/results/{facts['id']}/{name}").status_code == 404


def test_large_images_are_shown_reduced(studio, tmp_path):
    photo(2000, 1500).save(tmp_path / "large.png")
    data = (tmp_path / "large.png").read_bytes()
    image = studio.post("/api/images", content=data).json()["id"]
    _, facts = segment(studio, image)
    assert facts["size"] == [2000, 1500]
    ids = Image.open(io.BytesIO(studio.get(f"/api/results/{facts['id']}/ids.png").content))
    assert ids.size == (facts["width"], facts["height"]) == (1672, 1254)
    planes = studio.get(f"/api/results/{facts['id']}/scores.bin").content
    assert len(planes) == len(facts["scores"]) * 1672 * 1254


def test_the_strongest_where_nothing_was_found():
    logits = np.float32([[[9, 3]], [[2, 2]], [[1, 2.5]]])
    image, names = np.zeros((1, 2, 3), np.uint8), ["background", "cat", "dog"]
    found = postprocess(image, logits, names, presence_threshold=0.9)
    dog = np.exp(2.5) / (np.exp(3) + np.exp(2) + np.exp(2.5))
    assert strongest(found) == {"name": "dog", "probability": pytest.approx(dog)}
    assert strongest(postprocess(image, -logits, names)) is None  # there are objects
    sky = ["sky", "cat", "dog"]  # a class like the others
    assert strongest(postprocess(image, logits, sky, presence_threshold=0.9)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "all"}, "the choices are|did you mean"),
        ({"format": "mask"}, "format"),
        ({"proposals": 0}, "0"),
    ],
)
def test_refusals(studio, image, options, message):
    answer = studio.post(f"/api/images/{image}/segment", params=options)
    text = answer.text
    if answer.status_code == 202:
        text = studio.get(f"/api/jobs/{answer.json()['job']}/events").text
        assert "event: failed" in text
    assert any(part in text for part in message.split("|")), text
