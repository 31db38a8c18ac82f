"""The page Draw in a browser: the pixels of Python, and the files of the command line."""

import base64
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from unpool.cli import main
from unpool.generate import Generator, activate_units, morph, morph_fractions, turntable
from unpool.generate.sequences import encode_changes

READ = """canvas => { const {width, height} = canvas;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let text = ""; for (const value of data) text += String.fromCharCode(value);
  return [width, height, btoa(text)]; }"""

COUNT = """(() => { const own = window.fetch; window.asked = []; window.most = 0; let now = 0;
  window.fetch = async (path, ...more) => {
    if (!String(path).includes("view.png")) return own(path, ...more);
    window.asked.push(path); window.most = Math.max(window.most, ++now);
    try { return await own(path, ...more); } finally { now--; } }; })()"""

DRAG = """async (input, [first, last]) => { for (let v = first; v <= last; v++) {
    input.value = v; input.dispatchEvent(new Event("input", {bubbles: true}));
    await new Promise((done) => setTimeout(done, 4)); }
  input.dispatchEvent(new Event("change", {bubbles: true})); }"""


@pytest.fixture(scope="module")
def generator():
    return Generator.from_pretrained("chairs")


@pytest.fixture
def draw(open_page):
    """The page Draw, at rest."""

    def draw(query="", **options):
        page = open_page(f"/#/draw{query}", **options)
        page.locator(".film .frame").first.wait_for()
        return page

    return draw


def drawn(page):
    """What the canvas shows, (H, W, 4)."""
    width, height, text = page.locator(".drawn").evaluate(READ)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def same(found, image):
    """Whether a canvas shows an image: the color of transparent pixels is lost there."""
    opaque = image.rgba[..., 3] == 255
    alike = np.array_equal(found[..., 3], image.rgba[..., 3])
    return alike and np.array_equal(found[opaque], image.rgba[opaque]) and opaque.any()


def shows(page, image, seconds=20):
    """Wait until the canvas shows an image."""
    for _ in range(10 * seconds):
        if same(drawn(page), image):
            return True
        page.wait_for_timeout(100)
    return False


def copied(page, button):
    """The text that a button copies."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=button).click()
    page.get_by_text("Copied.").wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def test_a_slider_dragged_through_fifty_steps(draw, generator):
    page = draw()
    assert same(drawn(page), generator.view(2, azimuth=30))
    page.evaluate(COUNT)
    page.get_by_role("slider", name="Azimuth").evaluate(DRAG, [31, 80])
    assert shows(page, generator.view(2, azimuth=80))
    page.wait_for_timeout(800)
    assert page.evaluate("window.most") == 1
    asked = page.evaluate("window.asked")
    assert len(asked) < 25
    assert "azimuth=80" in asked[-1]
    assert "azimuth=80" in page.url
    page.go_back()
    assert shows(page, generator.view(2, azimuth=30))


def test_a_turn_is_one_sheet(draw, generator):
    page = draw("?from=5&hue=0.5")
    sent = []
    page.on("request", lambda request: "/api/" in request.url and sent.append(request.url))
    images = turntable(generator, 5, 20, 36, transformation=encode_changes([("hue", 0.5)]))
    page.get_by_role("button", name="Play").click()
    seen = set()
    for _ in range(40):
        found = drawn(page)
        seen |= {n for n, image in enumerate(images) if same(found, image)}
        page.wait_for_timeout(40)
    assert len(seen) > 5
    assert sent == []  # the sheet of the film strip has all frames
    page.get_by_role("button", name="Stop").click()
    azimuth = int(re.search(r"azimuth=(\d+)", page.url)[1])
    assert shows(
        page, generator.view(5, azimuth=azimuth, transformation=encode_changes([("hue", 0.5)]))
    )
    page.locator(".film .frame").nth(3).click()
    change = encode_changes([("hue", 0.5)])
    assert shows(page, generator.view(5, azimuth=90, transformation=change))


def test_a_morph_is_one_sheet_and_a_film(draw, generator, tmp_path):
    page = draw("?from=4&to=9&azimuth=40")
    sent = []
    page.on("request", lambda request: "/api/" in request.url and sent.append(request.url))
    page.get_by_role("radio", name="Morph").check()
    page.get_by_role("button", name="Blend 1.00").wait_for()
    assert [url.rpartition("/")[2].partition("?")[0] for url in sent] == ["sheet.webp"]
    images = morph(generator, 4, 9, morph_fractions(36), azimuth=40)
    page.get_by_role("button", name="Play").click()
    seen = set()
    for _ in range(40):
        found = drawn(page)
        seen |= {n for n, image in enumerate(images) if same(found, image)}
        page.wait_for_timeout(40)
    assert len(seen) > 5
    assert len(sent) == 1
    page.keyboard.press("Escape")
    page.get_by_text("Save").click()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Morph, GIF").click()
    saved.value.save_as(tmp_path / "page.gif")
    args = ["--from", "4", "--to", "9", "--azimuth", "40", "--count", "36", "--elevation", "20"]
    assert main(["generate", "morph", *args, "-o", str(tmp_path / "own.gif"), "--quiet"]) == 0
    assert (tmp_path / "page.gif").read_bytes() == (tmp_path / "own.gif").read_bytes()
    with Image.open(tmp_path / "page.gif") as film:
        assert film.n_frames == 70


def test_arithmetic_and_the_command_for_it(draw, generator, tmp_path, monkeypatch):
    page = draw("?from=0&minus=1&plus=2&elevation=60&zoom=0.2")
    page.get_by_role("radio", name="A − B + C").check()
    change = encode_changes([("zoom", 0.2)])
    view = generator.view({0: 1, 1: -1, 2: 1}, azimuth=30, elevation=60, transformation=change)
    assert shows(page, view)
    note = page.get_by_role("note").text_content()
    assert "elevation 60 is beyond the 20 to 30" in note
    assert page.get_by_role("radio", name="Morph").is_disabled()
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line) for line in copied(page, "Copy as command").splitlines()]
    for line in lines:
        assert line[0] == "unpool"
        assert main([*line[1:], "--quiet"]) == 0
    page.get_by_text("Save").click()
    for name, file in (("Image", "chair.png"), ("Turn, GIF", "turn.gif")):
        with page.expect_download() as saved:
            page.locator(".menu a", has_text=name).first.click()
        assert saved.value.suggested_filename == file
        saved.value.save_as(tmp_path / f"page-{file}")
        assert (tmp_path / f"page-{file}").read_bytes() == (tmp_path / file).read_bytes()
    code = copied(page, "Copy as Python")
    (tmp_path / "python").mkdir()
    monkeypatch.chdir(tmp_path / "python")
    exec(code, {})
    for file in ("chair.png", "turn.gif"):
        assert (tmp_path / "python" / file).read_bytes() == (tmp_path / file).read_bytes()


def test_single_units(draw, generator, tmp_path):
    page = draw()
    page.get_by_text("Single units").click()
    page.get_by_role("button", name="Unit 28", exact=True).click()
    (image,) = activate_units(generator, "shared.fc4", [28]).images()
    page.get_by_text("Unit 28 of shared.fc4 alone").wait_for()
    assert np.array_equal(drawn(page)[..., :3], image)
    page.get_by_text("Save").click()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Unit").click()
    assert np.array_equal(np.asarray(Image.open(saved.value.path())), image)
    page.get_by_label("Layer").select_option("rgb.stages.0")
    page.get_by_role("button", name="Unit 3", exact=True).wait_for()
    page.get_by_role("slider", name="Elevation").fill("25")
    assert shows(page, generator.view(2, azimuth=30, elevation=25))


def test_all_by_keyboard(draw, generator):
    page = draw()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert shows(page, generator.view(2, azimuth=40, elevation=25))
    page.keyboard.press("s")
    assert page.evaluate("document.activeElement.textContent").startswith("Image")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_narrow(draw, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = draw("?elevation=50", color_scheme=scheme)
    for name in ("All styles", "Transformation", "Single units"):
        page.get_by_text(name, exact=True).click()
    page.locator(".units .frame").first.wait_for()
    page.locator(".styles .frame").first.wait_for()
    assert axe.run(page).response["violations"] == []
    phone = draw(
        "?elevation=50", color_scheme=scheme, has_touch=True, is_mobile=True,
        viewport={"width": 390, "height": 844},
    )  # fmt: skip
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert axe.run(phone).response["violations"] == []
    small = phone.evaluate(
        "[...document.querySelectorAll('button, summary, select, .slider input')]"
        ".filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert small == []
