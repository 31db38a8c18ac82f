"""One truth: the command line, Python and the service give the same bytes for the same options."""

import base64
import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

import unpool
from tests.cli.files import photo
from unpool.cli import main
from unpool.vision.images import read_image, read_mask
from unpool.visualize.activations import run_model


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A photo as a JPEG, turned by its EXIF orientation."""
    path = tmp_path_factory.mktemp("photo") / "cat.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(100, 70).save(path, exif=exif)
    return path


def command(tmp_path, *args):
    """The files that a command writes, by name."""
    assert main([*map(str, args), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}


def flags(options):
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def post(calls, path, file=None, **options):
    data = file.read_bytes() if file else b""
    answer = calls.post(path, content=data, params=options)
    assert answer.status_code == 200, answer.text
    return answer


SEGMENT = [
    {},
    {"mode": "whole", "presence-threshold": 0.4},
    {"crf": "densecrf"},
    {"mode": "instance", "proposals": 3, "preset": "reference"},
    {"mode": "instance", "proposals": 5, "aggregate": "mean", "method": "grid"},
    {"mode": "tiles", "tile": 32, "overlap": 8, "scale": 1.5},
    {"void-below": 0.35},
]


@pytest.mark.parametrize("options", SEGMENT, ids=str)
def test_segment(calls, weights, image, tmp_path, options):
    files = command(
        tmp_path, "segment", image, "--weights", weights, "--precision", "fp32",
        "--format", "mask,coco", *flags(options),
    )  # fmt: skip
    answer = post(calls, "/v1/segment", image, **options)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == files["cat.png"]
    assert (
        post(calls, "/v1/segment", image, **options, format="overlay").content
        == (files["cat.overlay.jpg"])
    )
    with image.open("rb") as file:
        options = {k: str(v) for k, v in options.items()}
        coco = calls.post("/v1/segment?format=coco", files={"file": file}, data=options)
    assert coco.content == files["annotations.coco.json"]

    segmenter = unpool.load(weights, precision="fp32")
    given = {name.replace("-", "_"): parsed(value) for name, value in options.items()}
    result = segmenter(image, **given)
    found = post(calls, "/v1/segment", image, **options, format="json").json()
    assert np.array_equal(read_mask(io.BytesIO(answer.content)), result.labels)
    gray = Image.open(io.BytesIO(base64.b64decode(found["segmentation_mask"])))
    assert gray.mode == "L"
    assert np.array_equal(np.asarray(gray), result.labels)
    assert found["labels"] == result.to_dict()["labels"]
    assert found["description"] == segmenter.describe(**given)
    assert found["image"] == {"width": 70, "height": 100}
    assert {found["class_map"][k] for k in found["class_map"]} == {*result.fractions()} - {"void"}
    assert json.loads(answer.headers["x-unpool-facts"])["labels"] == found["labels"]


def parsed(text):
    try:
        return json.loads(str(text))
    except ValueError:
        return text


RESTORE = [
    {"psf": "gaussian:1.2", "method": "wiener"},
    {"psf": "motion:5,30", "method": "rl", "steps": 4, "gamma": "srgb"},
    {"psf": "disk:2", "method": "tikhonov", "luma": "", "noise": 0.01},
    {"psf": "estimate:gaussian", "method": "wiener"},
]


@pytest.mark.parametrize("options", RESTORE, ids=str)
def test_restore(calls, image, tmp_path, options):
    given = [part for part in flags(options) if part]
    files = command(tmp_path, "restore", image, "--no-compare", *given)
    answer = post(calls, "/v1/restore", image, **options)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == files["cat.jpg"]
    restored = unpool.Restorer(**{
        name: parsed(value) or True for name, value in options.items() if name != "psf"
    })(image, options["psf"])  # fmt: skip
    found = read_image(io.BytesIO(answer.content)).astype(int)  # JPEG changes it a little
    assert np.abs(restored.image - found).mean() < 2
    assert json.loads(answer.headers["x-unpool-facts"])["method"] == options["method"]


def test_restore_keeps_pages_and_type(calls, tmp_path):
    path = tmp_path / "a.tif"
    pages = np.stack([np.asarray(photo(40, 30, seed).convert("L")) for seed in range(3)])
    tifffile.imwrite(path, pages.astype(np.uint16) * 17, photometric="minisblack")
    args = ["--psf", "gaussian:1", "--method", "wiener"]
    files = command(tmp_path, "restore", path, *args, "--no-compare")
    answer = post(calls, "/v1/restore", path, psf="gaussian:1", method="wiener")
    assert answer.headers["content-type"] == "image/tiff"
    assert answer.content == files["a.tif"]
    found = post(calls, "/v1/restore", path, psf="gaussian:1", method="wiener", format="json")
    assert base64.b64decode(found.json()["image"]) == files["a.tif"]
    assert found.json()["pages"] == 3
    as_float = post(calls, "/v1/restore", path, psf="gaussian:1", method="wiener", float="")
    assert tifffile.imread(io.BytesIO(as_float.content)).dtype == np.float32


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"layer": "trunk.stages.0", "unit": 1}, "cat.trunk.stages.0.1.png"),
        ({"layer": "trunk.stages.1"}, "cat.trunk.stages.1.png"),
        (
            {"layer": "trunk.stages.1", "unit": 2, "place": "2,3", "rule": "guided", "gray": ""},
            "cat.trunk.stages.1.2.png",
        ),
    ],
)
def test_project(calls, weights, image, tmp_path, options, name):
    given = [part for part in flags(options) if part]
    files = command(tmp_path, "visualize", "project", image, "--weights", weights, *given)
    answer = post(calls, "/v1/project", image, **options)
    assert answer.content == files[name]
    record = json.loads(files["cat.json"])["projections"][0]
    record.pop("file")
    assert json.loads(answer.headers["x-unpool-facts"]) == record


def test_a_projection_is_one_pass(calls, models, image, monkeypatch):
    post(calls, "/v1/project", image, layer="trunk.stages.1")
    assert "trunk.stages.1" in models.fields
    passes = []

    def counted(*args):
        passes.append(1)
        return run_model(*args)

    monkeypatch.setattr("unpool.visualize.activations.run_model", counted)
    post(calls, "/v1/project", image, layer="trunk.stages.1", unit=2)
    assert len(passes) == 1


def test_project_a_class(calls, weights, image, tmp_path):
    found = post(calls, "/v1/segment", image, format="json").json()
    names = list(found["labels"])
    args = ["visualize", "project", image, "--weights", weights, "--class", names[0]]
    files = command(tmp_path, *args)
    answer = post(calls, "/v1/project", image, **{"class": names[0]})
    assert answer.content == files[f"cat.score.{names[0]}.png"]


@pytest.mark.parametrize(
    "options",
    [
        {"style": "3", "azimuth": 45, "elevation": 25},
        {"style": "0=1,1=-1,2=1", "change": "zoom=0.1", "scale": 2, "background": "#204060"},
    ],
    ids=str,
)
def test_generate(calls, tmp_path, options):
    for suffix in ("png", "jpg"):
        path = tmp_path / f"chair.{suffix}"
        assert main(["generate", "view", *flags(options), "-o", str(path), "--quiet"]) == 0
        answer = post(calls, "/v1/generate", **options, format=suffix)
        assert answer.content == path.read_bytes()


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("segment", {"mode": "tile"}, "did you mean 'tiles'"),
        ("segment", {"proposals": 3}, "pass mode='instance'"),
        ("segment", {"mode": "tiles", "scale": 1e9}, "number from 0.01 to 4"),
        ("segment", {"format": "gif"}, "got format 'gif'"),
        ("segment", {"crf": "auto", "samples": 3}, "without dropout"),
        ("restore", {}, "got no psf"),
        ("restore", {"psf": "/etc/passwd"}, "no known PSF"),
        ("restore", {"psf": "gaussian:1e9"}, "lengths of 100 pixels at most"),
        ("restore", {"psf": "moffat:100,1.0001"}, "reaches"),
        ("restore", {"psf": "shake:x"}, "wanted numbers"),
        ("project", {}, "got no layer"),
        ("project", {"layer": "nowhere"}, "the choices are"),
        ("project", {"layer": "trunk.stages.0", "unit": 99}, "wanted 0 to"),
        ("project", {"class": "cow"}, "got class 'cow' for tiny"),
        ("project", {"class": "cat", "unit": 3}, "leave them out"),
        ("generate", {}, "got no style"),
        ("generate", {"style": "no such chair"}, "the choices are"),
        ("generate", {"style": "1", "background": "grue"}, "got the color"),
    ],
)
def test_wrong_options(calls, image, path, options, message):
    data = image.read_bytes() if path != "generate" else b""
    answer = calls.post(f"/v1/{path}", content=data, params=options)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]
