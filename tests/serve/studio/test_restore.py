"""The API of the page Restore gives the bytes of the command line."""

import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from unpool import Restorer
from unpool.cli import main
from unpool.errors import ImageError, OptionError
from unpool.serve.engine import Job
from unpool.serve.studio import restore
from unpool.vision.psf import find_psf


@pytest.fixture(scope="module")
def sharp():
    """A photo as a PNG, (120, 160) RGB."""
    file = io.BytesIO()
    Image.fromarray(data.astronaut()[40:160, 130:290]).save(file, "PNG")
    return file.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_restored_as_by_the_command_line(models, sharp, tmp_path, suffix):
    Image.open(io.BytesIO(restore.blurred_image(sharp, "disk:2"))).save(tmp_path / f"a{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    given = {"psf": "disk:2", "method": "tv", "noise": 0.004}
    found = restore.restore_image(models, content, dict(given), Job())
    args = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    command = ["restore", str(tmp_path / f"a{suffix}"), "-o", str(tmp_path / "out"), "--quiet"]
    assert main([*command, *args]) == 0
    assert found.file == (tmp_path / f"out/a{suffix}").read_bytes()
    result = Restorer("tv", noise=0.004)(tmp_path / f"a{suffix}", "disk:2")
    assert np.array_equal(pixels(found.after), result.image)
    assert np.array_equal(pixels(found.before), Image.open(tmp_path / f"a{suffix}"))
    assert found.facts == {**result.to_dict(), "pages": 1}


def test_sixteen_bits_are_shown_in_one_brightness(models, tmp_path):
    values = (data.camera()[:64, :80].astype(np.uint16)) * 16  # 12 bits
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    content = (tmp_path / "a.tif").read_bytes()
    found = restore.restore_image(models, content, {"psf": "gaussian:0.8", "method": "tv"}, Job())
    assert tifffile.imread(io.BytesIO(found.file)).dtype == np.uint16
    before, after = pixels(found.before), pixels(found.after)
    assert before.max() == 255
    assert abs(before.mean() - after.mean()) < 2


def test_the_psf_is_shown_as_it_is(sharp):
    shown = pixels(restore.psf_image("motion:9,0"))
    side = shown.shape[0] // 11
    assert shown.shape == (11 * side, 11 * side, 3)
    cells = shown[side // 2 :: side, side // 2 :: side].astype(int).sum(2)
    wanted = np.zeros((11, 11), bool)
    wanted[5, 1:10] = find_psf("motion:9,0").kernel > 0
    assert np.array_equal(cells > cells.min(), wanted)
    with pytest.raises(OptionError, match="wanted lengths of 100 pixels at most"):
        restore.psf_image("gaussian:500")


def test_a_blurred_sample_is_undone_by_its_psf(models, sharp):
    y = restore.blurred_image(sharp, "motion:7,20", 0.002)
    kernel = find_psf("motion:7,20").kernel
    image = pixels(sharp).astype(float)
    top, left = (n // 2 for n in kernel.shape)
    by_hand = sum(
        kernel[i, j] * image[2 * top - i : image.shape[0] - i, 2 * left - j : image.shape[1] - j]
        for i, j in np.argwhere(kernel > 0)
    )
    assert abs(pixels(y) - by_hand).mean() < 1
    truth = image[top : image.shape[0] - top, left : image.shape[1] - left]
    found = restore.restore_image(models, y, {"psf": "motion:7,20"}, Job())
    errors = [((pixels(content) - truth) ** 2).mean() for content in (found.before, found.after)]
    assert errors[1] < errors[0] / 2
    assert found.facts["reason"].startswith("auto: ")
    with pytest.raises(ImageError, match="blur a larger image"):
        restore.blurred_image(sharp, "disk:40")


def restored(studio, image, **options):
    """The last event of a job, and what it says."""
    answer = studio.post(f"/api/images/{image}/restore", params=options)
    assert answer.status_code == 202, answer.text
    events = studio.get(f"/api/jobs/{answer.json()['job']}/events").text.split("\n\n")
    last = events[-2]  # after the last one there is nothing
    return last.split("\n")[1].removeprefix("event: "), json.loads(last.partition("data: ")[2])


def test_a_sample_is_blurred_and_restored(studio, tmp_path):
    blurred = studio.post("/api/images/chelsea/blur?psf=disk:2&noise=0.004").json()
    assert blurred["name"] == "A-cat-blurred.png"
    cat = studio.get("/static/samples/chelsea.jpg").content
    (tmp_path / "cat.png").write_bytes(restore.blurred_image(cat, "disk:2", 0.004))
    event, facts = restored(studio, blurred["id"], psf="disk:2", method="wiener")
    assert event == "done"
    command = ["restore", str(tmp_path / "cat.png"), "-o", str(tmp_path / "out"), "--quiet"]
    assert main([*command, "--psf", "disk:2", "--method", "wiener"]) == 0
    saved = studio.get(facts["file"])
    assert saved.content == (tmp_path / "out/cat.png").read_bytes()
    assert (saved.headers["content-type"], facts["suffix"]) == ("image/png", ".png")
    assert np.array_equal(pixels(studio.get(facts["after"]).content), pixels(saved.content))
    view = studio.get(f"/api/images/{blurred['id']}/view.jpg").content
    assert pixels(studio.get(facts["before"]).content).shape == pixels(view).shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got no psf"),
        ({"psf": "/etc/passwd"}, "is no known PSF"),
        ({"psf": "disk:2", "method": "magic"}, "got method 'magic'"),
        ({"psf": "none"}, "no weights of a blind network"),
    ],
)
def test_what_cannot_be_restored_is_explained(studio, options, message):
    event, found = restored(studio, "chelsea", **options)
    assert event == "failed"
    assert message in found["error"]


def test_the_psf_over_http(studio):
    answer = studio.get("/api/psf.png?psf=motion:5,10")
    assert answer.content == restore.psf_image("motion:5,10")
    assert answer.headers["content-type"] == "image/png"
    refused = studio.get("/api/psf.png?psf=disk:9999")
    assert (refused.status_code, "100 pixels" in refused.json()["error"]) == (422, True)
