"""The page Restore in a browser: the bytes of Python and of the command line."""

import io
import shlex

import numpy as np
import pytest
from PIL import Image
from skimage import data

from unpool import Restorer
from unpool.cli import main
from unpool.serve.studio.restore import blurred_image, psf_image

READ = """async (image) => { await image.decode();
  const canvas = Object.assign(document.createElement("canvas"),
    {width: image.naturalWidth, height: image.naturalHeight});
  const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
  return [canvas.width, canvas.height,
    [...context.getImageData(0, 0, canvas.width, canvas.height).data]]; }"""


@pytest.fixture
def restore(open_page):
    """The page Restore with a result."""

    def restore(query="", **options):
        page = open_page(f"/#/restore{query}", **options)
        page.get_by_text("Restored by").first.wait_for()
        return page

    return restore


def pixels(image):
    """What an image element shows, RGB."""
    width, height, values = image.evaluate(READ)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def save(page, name):
    if not page.locator(".menu[open]").count():
        page.get_by_text("Save", exact=True).click()
    with page.expect_download() as saved:
        page.locator(".menu a", has_text=name).click()
    return saved.value


def test_a_sample_is_blurred_and_restored(restore, address, tmp_path, monkeypatch):
    page = restore("?method=wiener")
    blurred = save(page, "Blurred sample")
    monkeypatch.chdir(tmp_path)
    blurred.save_as(blurred.suggested_filename)
    sample = page.request.get(f"{address}/static/samples/chelsea.jpg").body()
    assert (tmp_path / "A-cat-blurred.png").read_bytes() == blurred_image(sample)
    result = Restorer("wiener")("A-cat-blurred.png", "motion:13,30")
    assert np.array_equal(pixels(page.locator(".compare img").nth(0)), result.before)
    assert np.array_equal(pixels(page.locator(".compare img").nth(1)), result.image)
    saved = save(page, "Restored image")
    assert saved.suggested_filename == "A-cat-blurred-restored.png"
    result.save("python.png")
    saved.save_as("page.png")
    assert (tmp_path / "page.png").read_bytes() == (tmp_path / "python.png").read_bytes()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as command").click()
    page.get_by_text("Copied.").wait_for()
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert main([*command[1:], "--quiet"]) == 0
    own = tmp_path / "restored/A-cat-blurred.png"
    assert own.read_bytes() == (tmp_path / "page.png").read_bytes()
    (tmp_path / "restored/A-cat-blurred.png").unlink()
    page.get_by_role("button", name="Copy as Python").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.startsWith('from'))")
    exec(page.evaluate("navigator.clipboard.readText()"), {})
    assert own.read_bytes() == (tmp_path / "page.png").read_bytes()


def test_an_image_of_ones_own_keeps_its_type(restore, tmp_path):
    file = io.BytesIO()
    Image.fromarray(data.camera()[:160, :200]).save(file, "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    page = restore("?method=wiener&psf=disk:2")
    page.set_input_files("#file", tmp_path / "a.jpg")
    page.get_by_role("button", name="a.jpg").wait_for()
    page.wait_for_function("document.querySelector('.compare img').naturalWidth == 200")
    page.locator(".compare img").nth(1).wait_for()
    saved = save(page, "Restored image")
    saved.save_as(tmp_path / "page.jpg")
    args = ["--psf", "disk:2", "--method", "wiener", "-o", str(tmp_path / "out"), "--quiet"]
    assert main(["restore", str(tmp_path / "a.jpg"), *args]) == 0
    assert (tmp_path / "page.jpg").read_bytes() == (tmp_path / "out/a.jpg").read_bytes()


def test_the_psf_is_shown_and_estimated(restore):
    page = restore("?method=wiener&psf=disk:3.5")
    page.get_by_role("slider", name="Radius").fill("5")
    page.get_by_text("disk:5", exact=True).wait_for()
    shown = np.asarray(Image.open(io.BytesIO(psf_image("disk:5"))).convert("RGB"))
    page.wait_for_function("document.querySelector('.psf').alt == 'The PSF disk:5'")
    for _ in range(100):
        if np.array_equal(pixels(page.locator(".psf")), shown):
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the PSF is not shown")
    page.get_by_label("Kind").select_option("motion")
    page.get_by_label("Estimate it from the image").check()
    page.get_by_text("estimated; look at the comparison").wait_for()
    assert "psf=estimate%3Amotion" in page.url
    assert "motion:" in page.locator(".kernel").text_content()
    page.go_back()
    page.get_by_text("motion:13,30", exact=True).wait_for()


def test_before_and_after_at_a_divider(restore):
    page = restore("?method=wiener")
    after = page.locator(".compare img").nth(1)
    page.get_by_role("slider", name="Divider between before and after").fill("25")
    assert after.evaluate("image => image.style.clipPath") == "inset(0px 0px 0px 25%)"
    box = page.locator(".compare").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 9)
    page.mouse.up()
    assert after.evaluate("image => image.style.clipPath") == "inset(0px 0px 0px 80%)"


def test_the_reason_and_the_value_of_a_method(restore):
    page = restore("?method=tv")
    page.locator(".summary", has_text="lam").wait_for()
    assert "chosen from the noise" in page.locator(".summary").text_content()
    page.get_by_label("Choose its value from the noise").uncheck()
    page.get_by_role("slider", name="Lambda").wait_for()
    page.locator(".summary", has_text="lam 0.01; noise").wait_for()
    page.get_by_label("Method", exact=True).select_option("auto")
    page.get_by_text("By a network: the best for images with a known PSF.").wait_for()


@pytest.mark.refused
def test_what_cannot_be_restored_is_said(open_page):
    page = open_page("/#/restore?psf=disk:900")
    page.get_by_text("Not restored").wait_for()
    page.get_by_label("Kind").select_option("gaussian")
    page.get_by_text("Restored by").first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_narrow(restore, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = restore("?method=rl-fast&steps=5&noise=0.01", color_scheme=scheme)
    assert axe.run(page).response["violations"] == []
    phone = restore(
        "?method=wiener", color_scheme=scheme, has_touch=True, is_mobile=True,
        viewport={"width": 390, "height": 844},
    )  # fmt: skip
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert axe.run(phone).response["violations"] == []
