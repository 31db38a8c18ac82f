"""The page Look inside in a browser, compared with Python."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from tests.cli.files import photo
from unpool.vision.drawing import heat_map, to_images
from unpool.vision.figures import patch
from unpool.visualize import decode, load_model, measure_field, project

LAYER = "trunk.stages.1"


@pytest.fixture(scope="module")
def loaded(weights):
    return load_model(weights)


@pytest.fixture
def look(open_page, tmp_path):
    """The page with a photo of its own, and the square that the network sees."""
    path = tmp_path / "cat.png"
    photo(50, 40).save(path)

    def start(query="", shown=True, **options):
        page = open_page(f"/#/look{query}", **options)
        page.locator("#file").set_input_files(path)
        page.wait_for_url("**image=*")
        if shown:
            page.locator("button.unit, button.map").first.wait_for()
        return page

    return start


@pytest.fixture
def square(loaded):
    return loaded.preprocessing.crop(np.asarray(photo(50, 40)))


def pixels(page, image):
    """An image of the page as its file has it."""
    image.wait_for()
    page.wait_for_function(
        "image => image.complete && image.naturalWidth", arg=image.element_handle()
    )
    path = image.evaluate("image => image.src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(path).body())))


def projected(page, unit):
    """Wait until a unit is shown; its patch and its projection."""
    page.get_by_text(f"Unit {unit} of").wait_for()
    found = page.locator(".part img")
    return pixels(page, found.nth(0)), pixels(page, found.nth(1))


def test_a_click_projects_the_strongest_unit(look, loaded, square):
    page = look(f"?layer={LAYER}")
    canvas = page.locator(".canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 12.5 / 32, "y": box["height"] * 20.5 / 32})
    page.wait_for_url("**at=12%2C20*")
    images = loaded.prepare([square])
    found = project(loaded.model, images, LAYER, list(range(6)), place=(10, 6))
    unit = int(found.values.argmax())
    seen, signal = projected(page, unit)
    shown = found.images(order=loaded.preprocessing.order)[unit]
    box = measure_field(loaded.model, images, LAYER).box(10, 6)
    assert np.array_equal(seen, patch(square, box))
    assert np.array_equal(signal, patch(shown, box))
    order = [int(text) for text in page.locator(".unit b").all_text_contents()]
    assert order == found.values.argsort(descending=True, stable=True).tolist()


def test_the_keyboard_alone(look, loaded, square):
    page = look(f"?layer={LAYER}")
    page.locator(".canvas").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**at=19%2C16*")
    page.locator(".skip").focus()
    first = page.locator(".unit[aria-pressed=true] b").text_content()
    page.keyboard.press("ArrowDown")
    second = page.locator(".unit b").nth(1).text_content()
    page.wait_for_url(f"**unit={second}*")
    page.get_by_text(f"Unit {second} of").wait_for()
    page.keyboard.press("r")
    page.wait_for_url("**rule=guided*")
    page.get_by_text("rule guided").wait_for()
    _, signal = projected(page, second)
    found = project(
        loaded.model, loaded.prepare([square]), LAYER, int(second), place=(8, 9), rule="guided"
    )
    whole = found.images(order=loaded.preprocessing.order)[0]
    box = measure_field(loaded.model, loaded.trial_image(), LAYER).box(8, 9)
    assert np.array_equal(signal, patch(whole, box))
    page.go_back()
    page.get_by_text("rule deconvnet").wait_for()
    page.go_back()
    page.get_by_text(f"Unit {first} of").wait_for()


def test_every_view_is_an_address(look, open_page):
    page = look(f"?layer={LAYER}")
    page.get_by_label("Unit", exact=True).fill("3")
    page.get_by_label("Unit", exact=True).press("Enter")
    page.get_by_label("Starts from").select_option("one")
    page.get_by_label("Where the unit is strongest").check()
    page.wait_for_url("**place=max*")
    page.get_by_text("Unit 3 of").wait_for()
    said = page.locator(".summary").inner_text()
    signal = pixels(page, page.locator(".part img").nth(1))
    again = open_page("/#" + page.url.partition("#")[2])
    again.get_by_text("Unit 3 of").wait_for()
    assert again.locator(".summary").inner_text() == said
    assert np.array_equal(pixels(again, again.locator(".part img").nth(1)), signal)


def test_the_decoder_stage_by_stage(look, loaded, square):
    page = look("?view=decoder")
    found = decode(loaded.model, loaded.prepare([square]), names=loaded.classes)
    page.locator("button.map").nth(4).wait_for()
    maps = [one for pair in found.stages for one in pair]
    images = page.locator("button.map img")
    assert images.count() == len(maps) + 1 == 5
    for n, one in enumerate(maps):
        assert np.array_equal(pixels(page, images.nth(n)), heat_map(one.values.numpy(), "inferno"))
    score = to_images(found.scores[None], contrast="linear")[0]
    assert np.array_equal(pixels(page, images.nth(4)), score)
    page.locator("button.map").nth(2).click()
    page.wait_for_url("**map=2*")
    large = page.locator(".large img")
    assert np.array_equal(pixels(page, large), heat_map(maps[2].values.numpy(), "inferno"))
    assert f"{maps[2].layer}, 32 × 32" in page.locator(".large").inner_text()


def test_play_stops_on_escape(look):
    page = look("?view=decoder")
    page.get_by_role("button", name="Play").click()
    page.locator('button.map[data-map="1"][aria-pressed=true]').wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Play").wait_for()
    at = page.locator("button.map[aria-pressed=true]").get_attribute("data-map")
    time.sleep(1.2)  # longer than a map is shown
    assert page.locator("button.map[aria-pressed=true]").get_attribute("data-map") == at
    page.keyboard.press("p")
    page.locator('button.map[data-map="4"][aria-pressed=true]').wait_for()
    page.get_by_role("button", name="Play").wait_for()  # it ends by itself


@pytest.mark.refused
def test_what_the_server_refuses_is_said(look):
    page = look("?view=decoder&class=unicorn", shown=False)
    page.get_by_text("got class 'unicorn'").wait_for()
    page.get_by_label("Class", exact=True).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["units", "decoder"])
def test_accessible(look, scheme, view):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = look(f"?view={view}", color_scheme=scheme)
    page.locator(".part img[alt^='The part'], .map[aria-pressed=true]").first.wait_for()
    assert [v["id"] for v in axe.run(page).response["violations"]] == []


@pytest.mark.parametrize("view", ["units", "decoder"])
def test_on_a_phone(look, view):
    page = look(f"?view={view}", viewport={"width": 390, "height": 844}, has_touch=True)
    page.locator(".part img[alt^='The part'], .map[aria-pressed=true]").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    kinds = "button, select, input[type=number]"
    for one in page.locator("main").locator(kinds).filter(visible=True).all():
        assert one.bounding_box()["height"] >= 44, one.evaluate("e => e.outerHTML")
    page.locator("button.unit, button.map").nth(1).tap()
    page.locator("button[aria-pressed=true]:is(.unit, .map)").wait_for()
