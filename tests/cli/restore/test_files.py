"""`unpool restore`: what is written and said; images keep their type, pages and tags."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data

from tests.cli.files import results
from unpool.ops.blur import blur
from unpool.vision.images import read_image
from unpool.vision.psf import find_psf
from unpool.vision.stacks import read_stack

RNG = np.random.default_rng(0)
PSF = "motion:7,30"


def scene(psf=PSF, sigma=0.005):
    """A photo of 80 x 100 pixels, and the same blurred; 0 to 1."""
    sharp = data.camera()[100:180, 150:250] / 255
    kernel = torch.from_numpy(find_psf(psf).kernel.astype(np.float64))
    y = blur(torch.from_numpy(sharp)[None, None], kernel)[0, 0].numpy()
    return sharp, np.clip(y + RNG.normal(0, sigma, y.shape), 0, 1)


def save(path, values, dtype=np.uint8):
    Image.fromarray(np.rint(values * np.iinfo(dtype).max).astype(dtype)).save(path)


def test_a_photo(run):
    sharp, y = scene()
    save("cat.png", y)
    code, out, err = run("restore", "cat.png", "--psf", PSF, "-o", "out")
    assert (code, err) == (0, [])
    assert out[0].startswith("cat.png: given (auto: the best for images with a known PSF")
    assert out[-1] == "1 of 1 restored, into out"
    assert results("out") == {"cat.png", "cat.compare.jpg"}
    restored = read_image("out/cat.png")[..., 0] / 255
    assert np.mean((restored - sharp) ** 2) < 0.4 * np.mean((y - sharp) ** 2)
    assert run("restore", "cat.png", "--psf", PSF, "-o", "out")[1][0].startswith("(skipped) ")


def test_the_record_says_how_it_was_made(run, tmp_path):
    sharp, y = scene()
    (tmp_path / "sharp").mkdir()
    save("cat.png", y)
    save("sharp/cat.png", sharp)
    args = ["restore", "cat.png", "--psf", PSF, "--method", "rl", "--truth", "sharp", "--json"]
    code, out, err = run(*args, "--no-compare", "-o", "out")
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    assert list(record) == [
        *("source", "image", "psf", "psf_size", "psf_changes", "method", "reason", "steps"),
        *(
            "chosen_by_noise",
            "noise",
            "noise_estimated",
            "noise_of_compression",
            "residual",
            "noise_to_try",
            "clipped",
            "tiles",
            "memory",
        ),
        *("pages", "psnr", "ssim", "psnr_before", "ssim_before", "seconds"),
    ]
    assert record["psnr"] > record["psnr_before"] + 2
    assert (record["reason"], record["method"]) == ("as asked for", "rl")
    assert 0.003 < record["noise"] < 0.009


def test_a_stack_keeps_its_type_pages_and_tags(run):
    _, y = scene()
    pages = np.stack([y * (i + 1) for i in range(3)]).astype(np.float32)
    about = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite("a.tif", pages, imagej=True, resolution=(10.0, 10.0), metadata=about)
    code, out, _ = run("restore", "a.tif", "--psf", PSF, "--method=tikhonov", "-o", "out", "--json")
    assert (code, json.loads(out[0])["pages"]) == (0, 3)
    found = read_stack("out/a.tif")
    assert (len(found), found.frames[0].dtype, found.voxel) == (3, np.float32, (0.5, 0.1, 0.1))
    np.testing.assert_allclose(found[2], 3 * found[0], rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("dtype", "bands"), [(np.uint16, 3), (np.uint8, 4)])
def test_color_tiffs(dtype, bands, run):
    _, y = scene()
    image = np.repeat(y[..., None] * np.iinfo(dtype).max, bands, 2).astype(dtype)
    extra = ["unassalpha"] if bands == 4 else None
    options = {"description": "night", "resolution": (300, 300), "extrasamples": extra}
    tifffile.imwrite("a.tif", image, photometric="rgb", metadata=None, **options)
    assert run("restore", "a.tif", "--psf", PSF, "--luma", "-o", "out")[0] == 0
    with tifffile.TiffFile("out/a.tif") as file:
        found = file.pages[0].asarray()
        assert file.pages[0].tags[270].value == "night"
    assert (found.dtype, found.shape) == (dtype, image.shape)
    if bands == 4:
        np.testing.assert_array_equal(found[..., 3], image[..., 3])


def test_a_volume(run):
    _, y = scene()
    volume = np.stack([y * 1000] * 9).astype(np.uint16)
    tifffile.imwrite("a.tif", volume)
    line = np.array([0.25, 0.5, 0.25])[:, None, None]
    psf = (1000 * line * find_psf(PSF).kernel).astype(np.float32)
    tifffile.imwrite("psf.tif", psf, photometric="minisblack")
    args = ["restore", "a.tif", "--psf", "psf.tif", "-o", "out"]
    assert run(*args, "--volume", "--method=rl", "--steps=5")[0] == 0
    found = tifffile.imread("out/a.tif")
    assert (found.shape, found.dtype) == (volume.shape, np.uint16)
    code, _, err = run(*args)
    assert (code, "of three dimensions; add --volume" in err[0]) == (2, True)


def test_voxels_must_agree(run):
    for name, size in (("a.tif", 10.0), ("psf.tif", 20.0)):
        about = {"imagej": True, "metadata": {"spacing": 0.5, "unit": "um", "axes": "ZYX"}}
        spot = np.zeros((5, 21, 21), np.float32)
        spot[2, 8:13, 8:13] = 1
        tifffile.imwrite(name, spot, resolution=(size, size), **about)
    code, _, err = run("restore", "a.tif", "--psf", "psf.tif", "--volume")
    assert (code, "resample the PSF" in err[-1]) == (3, True)


def test_a_contact_sheet_of_steps_and_psfs(run):
    save("cat.png", scene()[1])
    args = ["restore", "cat.png", "--psf", PSF, "--psf", "disk:3", "-o", "out", "--json"]
    code, out, _ = run(*args, "--method", "rl", "--steps", "2,5")
    record = json.loads(out[0])
    assert (code, record["sheet"]) == (0, "out/cat.sheet.jpg")
    assert [result["steps"] for result in record["results"]] == [2, 5, 2, 5]
    assert results("out") == {"cat.sheet.jpg"}


def test_the_variants_of_a_contact_sheet_are_compared_with_the_truth(run):
    sharp, y = scene()
    save("cat.png", y)
    save("sharp.png", sharp)
    args = ["restore", "cat.png", "--psf", PSF, "--psf", "disk:3", "--method=wiener"]
    out = run(*args, "--truth", "sharp.png", "-o", "out")[1]
    right, wrong = (float(line.split(" -> ")[1].split(",")[0]) for line in out[1:3])
    assert right > wrong
    assert out[2].startswith("  disk:3: wiener, balance ")
    plain = run(*args, "-o", "out2")[1][1]
    assert plain.startswith(f"  {PSF}: wiener, balance ")
    assert plain[-1].isdecimal()


def test_steps_choose_richardson_lucy(run):
    save("cat.png", scene()[1])
    out = run("restore", "cat.png", "--psf", PSF, "--steps", "2,5", "-o", "out", "--json")[1]
    assert [(r["method"], r["steps"], r["reason"]) for r in json.loads(out[0])["results"]] == [
        ("rl", steps, "auto: the method for steps") for steps in (2, 5)
    ]


def test_an_estimated_psf_and_floats(run):
    save("cat.png", scene("disk:2")[1])
    args = ["restore", "cat.png", "--psf", "estimate:disk", "--float", "--json", "-o", "out"]
    code, out, _ = run(*args)
    record = json.loads(out[0])
    assert (code, record["image"]) == (0, "out/cat.tif")
    assert record["psf"].startswith("disk:")
    assert (len(record["estimates"]), record["estimates"][0]) == (3, record["psf"])
    assert results("out") == {"cat.tif", "cat.compare.jpg", "cat.sheet.jpg"}
    height, width, _ = read_image(record["sheet"]).shape
    assert height > 0.8 * width  # two rows of two
    text = "\n".join(run(*args[:-3], "-o", "out2")[1])
    others = ", ".join(record["estimates"][1:])
    assert f"  other estimates: {others}; compare out2/cat.sheet.jpg, choose by --psf" in text
    assert "sheet" not in json.loads(run(*args[:-1], "out3", "--no-compare")[1][0])
    assert read_stack("out/cat.tif").frames[0].dtype == np.float32


def test_other_psf_files_are_other_results(run):
    save("cat.png", scene()[1])
    args = ["restore", "cat.png", "--psf", "psf.npy", "-o", "out", "--json"]
    for radius, skipped in ((2, False), (2, True), (3, False)):
        np.save("psf.npy", find_psf(f"disk:{radius}").kernel)
        assert ("skipped" in json.loads(run(*args)[1][0])) == skipped


def test_failures_are_reported_and_the_rest_is_done(run):
    save("a.png", scene()[1])
    tifffile.imwrite("b.tif", np.full((20, 20), np.nan, np.float32))
    code, out, err = run("restore", "a.png", "b.tif", "--psf", "disk:2", "-o", "out")
    assert code == 3
    assert err == [
        "unpool: b.tif: got 400 values that are not finite; replace them before, as by 0"
    ]
    assert out[-1] == "1 of 2 restored, into out"
    code, _, err = run("restore", "a.png", "--psf", "disk:2", "--truth", ".", "-o", "out2/c")
    assert code == 0
    save("c.png", scene()[1])
    (code, _, err), _ = run("restore", "c.png", "--psf", "disk:2", "--truth", "out"), None
    assert (code, "no image c in out; give the sharp image the name of" in err[-1]) == (3, True)


def test_truths_are_found_by_the_name_of_the_image(run, tmp_path):
    """Results of cat.png and cat.tif are called cat_png and cat_tif."""
    sharp, y = scene()
    (tmp_path / "sharp").mkdir()
    save("cat.png", y)
    save("cat.tif", y)
    save("sharp/cat.compare.png", y)
    save("sharp/cat.png", sharp)
    (tmp_path / "sharp" / "cat.json").touch()
    args = ["restore", "cat.png", "cat.tif", "--psf", PSF, "--truth", "sharp", "--json"]
    code, out, _ = run(*args, "-o", "out")
    assert (code, len(out)) == (0, 2)
    assert all(json.loads(line)["psnr_before"] < 60 for line in out[:2])


@pytest.mark.parametrize("scale", [np.uint16(257), np.float32(1 / 255), np.float32(10)])
def test_truths_of_other_types(run, scale):
    """PSNR is the same for 8 bits and 16, and for floating point of any range."""
    sharp, y = (np.rint(image * 255) for image in scene())
    kind = scale.dtype
    tifffile.imwrite("a.tif", (y * scale).astype(kind))
    eight = kind.kind == "u" or scale < 1
    tifffile.imwrite("sharp.tif", sharp.astype(np.uint8) if eight else sharp.astype(kind) * scale)
    args = ["restore", "a.tif", "--psf", PSF, "--truth", "sharp.tif", "--json", "-o", "out"]
    record = json.loads(run(*args)[1][0])
    expected = 10 * np.log10((255 if eight else sharp.max()) ** 2 / np.mean((sharp - y) ** 2))
    assert record["psnr_before"] == pytest.approx(expected, abs=0.01)


def test_a_truth_of_another_size_is_refused_first(run):
    save("cat.png", scene()[1])
    save("sharp.png", scene()[0][:50])
    code, _, err = run("restore", "cat.png", "--psf", PSF, "--truth", "sharp.png", "-o", "out")
    assert (code, "wanted one size: give the sharp image of the same scene" in err[-1]) == (3, True)
    assert results("out") == set()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "got no PSF; say what blurred the image: --psf motion:13,30"),
        (["--psf", "estimate:shake"], "'estimate:shake'; wanted one of estimate:gaussian, "),
        (["--psf", "estimate"], "got psf 'estimate'; wanted one of estimate:gaussian, "),
        (["--psf", PSF, "--steps", "5", "--lam", "1"], "values of several methods; give one"),
        (["--psf", "gausian:2"], "did you mean 'gaussian'"),
        (["--psf", "nowhere.tif"], "nowhere.tif, which does not exist"),
        (["--psf", PSF, "--method", "tv", "--balance", "1"], "got --balance 1 for method 'tv'"),
        (["--psf", PSF, "--steps", "2.5", "--method", "rl"], "wanted whole numbers above 0"),
        (["--psf", PSF, "--tile", "x"], "wanted auto, 0 or pixels"),
        (["--psf", PSF, "--gamma", "film"], "got --gamma film; wanted 'srgb', or an exponent"),
        (["--psf", PSF, "--volume"], f"--volume with the PSF {PSF} of two dimensions"),
    ],
)
def test_mistakes(args, message, refused):
    save("cat.png", scene()[1])
    assert message in refused("restore", "cat.png", *args)


def test_other_weights_in_the_package_are_other_results(run, monkeypatch):
    """Also those that nobody named, and only for methods that use them."""
    save("cat.png", scene()[1])
    for method, again in (("auto", True), ("tv", False)):
        args = ["restore", "cat.png", "--psf", PSF, "--method", method, "-o", method]
        run(*args)
        assert run(*args)[1][0].startswith("(skipped) ")
        with monkeypatch.context() as other:
            other.setattr("unpool.cards.weights_digest", lambda source: "of another version")
            assert run(*args)[1][0].startswith("(skipped) ") is not again


def test_the_network_for_photos_is_not_for_microscopes(run):
    _, y = scene()
    pages = np.stack([y, y]).astype(np.float32)
    tifffile.imwrite("stack.tif", pages)
    about = {"unit": "um", "axes": "YX"}
    tifffile.imwrite("one.tif", pages[0], imagej=True, resolution=(10.0, 10.0), metadata=about)
    tifffile.imwrite("counts.tif", 900 * pages[0])
    tifffile.imwrite("photo.tif", pages[0])
    for name, why in (
        ("stack", "the file is a stack of pages"),
        ("one", "the file states the size of its voxels"),
        ("counts", "the values are floating point up to "),
        ("photo", ""),
    ):
        _, out, _ = run("restore", f"{name}.tif", "--psf", PSF, "-o", "out", "--json")
        record = json.loads(out[0])
        assert record["method"] == ("tv" if why else "given")
        if why:
            assert f"trained on photos, and {why}" in record["reason"]
    args = ["restore", "one.tif", "--psf", PSF, "-o", "out", "--method", "given"]
    assert "(as asked for, but the network was trained on photos" in run(*args)[1][0]
