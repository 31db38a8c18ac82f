"""The page Segment in a browser, compared with Python pixel for pixel."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

import unpool
from tests.cli.files import CLASSES, photo
from tests.serve.studio.conftest import served
from tests.serve.test_app import IMAGE
from tests.serve.test_intake import png_header
from unpool.vision.images import read_mask

PIXELS = """(layer) => {
  const canvas = document.querySelectorAll("canvas.layer")[layer];
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.width, canvas.height, ...data];
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    photo(90, 60, seed=4).save(path)
    return path


@pytest.fixture(scope="module")
def segmenter(weights):
    return unpool.load(weights, precision="fp32")


def settled(page):
    """Wait until there is a result and nothing is computed."""
    page.locator(".classes li").first.wait_for()
    page.locator(".work").wait_for(state="hidden")


def choose(page, path):
    page.set_input_files("#file", path)
    page.locator(".thumb[aria-pressed=true][title='cat.png']").wait_for()
    settled(page)


def pixels(page, layer=0):
    """The colors of a layer of the stage, (H, W, 4)."""
    width, height, *values = page.evaluate(PIXELS, layer)
    return np.array(values, np.uint8).reshape(height, width, 4)


def shown_labels(page, segmenter, layer=0):
    """The class ids on the screen, by their colors; all classes are shown, opaque."""
    page.get_by_label("Vivid colors").uncheck()
    page.get_by_label("Opacity").fill("1")
    for box in page.locator(".classes li [type=checkbox]").all():
        box.check()
    page.mouse.move(2, 2)
    colors = pixels(page, layer)
    assert (colors[..., 3] == 255).all()
    matches = (colors[..., None, :3] == segmenter.palette[: len(CLASSES)]).all(-1)
    assert matches.any(-1).all(), "a color of no class"
    return matches.argmax(-1)


def hand_over(page, path, event):
    """Drop or paste a file."""
    page.evaluate(
        """([bytes, event]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "cat.png", { type: "image/png" }));
          const given = { bubbles: true, cancelable: true };
          document.body.dispatchEvent(event === "drop"
            ? new DragEvent("drop", { ...given, dataTransfer: data })
            : new ClipboardEvent("paste", { ...given, clipboardData: data }));
        }""",
        [list(path.read_bytes()), event],
    )
    page.locator(".thumb[aria-pressed=true][title='cat.png']").wait_for()
    settled(page)


def test_opens_with_a_sample_segmented(page):
    settled(page)
    assert page.locator(".thumbs img").count() == 4
    assert page.locator(".canvas img").evaluate("image => image.complete && image.naturalWidth > 0")
    assert pixels(page)[..., 3].any()


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_an_image_of_ones_own(page, path, segmenter, way):
    settled(page)
    choose(page, path) if way == "choose" else hand_over(page, path, way)
    assert np.array_equal(shown_labels(page, segmenter), segmenter(path).labels)


@pytest.mark.parametrize("scale", [1, 2])
def test_the_pointer_reads_classes_and_probabilities(open_page, path, segmenter, scale):
    page = open_page(device_scale_factor=scale)
    choose(page, path)
    page.wait_for_load_state("networkidle")
    result = segmenter(path)
    box = page.locator(".canvas").bounding_box()
    for x, y in ((3, 5), (45, 30), (88, 58)):
        page.mouse.move(
            box["x"] + (x + 0.5) * box["width"] / 90, box["y"] + (y + 0.5) * box["height"] / 60
        )
        shares = np.rint(255 * result.probabilities[:, y, x]) / 255
        order = sorted(np.flatnonzero(result.probabilities.any((1, 2))), key=lambda k: -shares[k])
        texts = [f"{CLASSES[k]} {shares[k]:.2f}" for n, k in enumerate(order) if n < 2 or shares[k]]
        assert page.locator(".readout").text_content() == ", ".join(texts) + f" at ({x}, {y})"
        assert page.locator(".readout b").text_content() == texts[0]
        lit = page.locator(".classes li.lit .name").text_content()
        assert lit == CLASSES[result.labels[y, x]]


def test_what_is_painted_needs_no_server(page, path, segmenter):
    choose(page, path)
    page.wait_for_load_state("networkidle")
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    labels = shown_labels(page, segmenter)
    k = int(np.bincount(labels.ravel()).argmax())
    row = page.locator(f".classes li[data-id='{k}']")
    row.locator("[type=checkbox]").uncheck()
    page.mouse.move(2, 2)
    assert np.array_equal(pixels(page)[..., 3] > 0, labels != k)
    row.locator("[type=checkbox]").check()
    page.mouse.move(2, 2)
    row.locator("[type=color]").fill("#12ab34")
    assert (pixels(page)[labels == k] == [0x12, 0xAB, 0x34, 255]).all()
    page.get_by_label("Opacity").fill("0.5")
    assert set(np.unique(pixels(page)[..., 3])) == {128}
    page.get_by_label("Show mask").uncheck()
    assert not pixels(page)[..., 3].any()
    assert not sent


def test_instances_with_progress_and_proposals(page, path, segmenter):
    choose(page, path)
    page.evaluate("""() => {
      window.seen = { values: [], boxes: 0 };
      new MutationObserver((changes) => changes.forEach(({ target }) => {
        if (target.matches?.("progress")) seen.values.push(target.value);
        seen.boxes = Math.max(seen.boxes, document.querySelectorAll("svg .box").length);
      })).observe(document.body, { subtree: true, attributes: true, childList: true });
    }""")
    page.get_by_label("Instances").check(force=True)
    page.get_by_text("instance-wise").wait_for()
    settled(page)
    result = segmenter(path, mode="instance")
    seen = page.evaluate("seen")
    assert seen["values"] == sorted(seen["values"])
    assert seen["values"][-1] == len(result.boxes) == seen["boxes"]
    assert page.locator("svg .box").count() == 0
    assert "mode=instance" in page.url
    assert np.array_equal(shown_labels(page, segmenter), result.labels)
    page.go_back()
    page.get_by_text("whole images").wait_for()
    settled(page)
    assert np.array_equal(shown_labels(page, segmenter), segmenter(path).labels)


@pytest.fixture
def slow(monkeypatch):
    """Makes the networks of instance-wise segmentation slow."""
    from unpool.segment.segmenter import Segmenter

    infer = Segmenter.infer

    def slowly(self, images):
        if len(images) > 1:
            time.sleep(0.3)
        return infer(self, images)

    monkeypatch.setattr(Segmenter, "infer", slowly)
    monkeypatch.setattr(Segmenter, "quickest_batch", lambda self: 2)


@pytest.mark.parametrize("way", ["button", "key"])
def test_cancel_frees_the_engine(page, slow, way):
    settled(page)
    before = pixels(page)
    page.get_by_label("Instances").check(force=True)
    page.locator("progress").wait_for()
    page.get_by_role("button", name="Cancel").click() if way == "button" else page.keyboard.press(
        "Escape"
    )
    page.get_by_text("Cancelled").wait_for()
    start = time.perf_counter()
    page.get_by_label("Tiles").check(force=True)
    page.locator(".summary").get_by_text("tiles").wait_for()
    assert time.perf_counter() - start < 3
    page.get_by_label("Whole").check(force=True)
    page.locator(".summary").get_by_text("whole").wait_for()
    assert page.locator("svg .box").count() == 0
    assert np.array_equal(pixels(page), before)


def test_two_results_side_by_side(page, path, segmenter):
    choose(page, path)
    page.get_by_label("Dense CRF").check()
    page.locator(".summary").get_by_text("dense CRF").wait_for()
    settled(page)
    page.get_by_label("Compare with").select_option("whole")
    page.get_by_label("Divider").fill("25")
    layers = page.locator("canvas.layer")
    assert layers.nth(0).evaluate("e => e.style.clipPath") == "inset(0px 0px 0px 25%)"
    assert layers.nth(1).evaluate("e => e.style.clipPath") == "inset(0px 75% 0px 0px)"
    assert layers.nth(1).is_visible()
    with_crf = segmenter(path, crf="densecrf")
    assert np.array_equal(shown_labels(page, segmenter), with_crf.labels)
    assert np.array_equal(shown_labels(page, segmenter, layer=1), segmenter(path).labels)
    box = page.locator(".canvas").bounding_box()
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 9)
    page.mouse.up()
    assert page.get_by_label("Divider").input_value() == "80"
    page.get_by_label("Dense CRF").uncheck()
    page.locator(".summary").get_by_text("whole").wait_for()
    settled(page)
    assert np.array_equal(shown_labels(page, segmenter), segmenter(path).labels)


@pytest.mark.refused
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an image"),
        (IMAGE[:-300], "broken or cut short"),
        (png_header(30_000, 30_000), "is too large by its header"),
        (bytes(21 * 2**20), "more than 20 MiB"),
    ],
    ids=["text", "cut", "bomb", "large"],
)
def test_what_cannot_be_opened_is_one_sentence(page, path, segmenter, data, message):
    settled(page)
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": data})
    page.get_by_role("status").get_by_text(message).wait_for()
    choose(page, path)
    assert np.array_equal(shown_labels(page, segmenter), segmenter(path).labels)


@pytest.mark.refused
def test_a_busy_server_is_waited_for(open_page, models, slow):
    with served(models, waiting=0) as address:
        first = open_page(origin=address)
        settled(first)
        first.get_by_label("Instances").check(force=True)
        first.locator("progress").wait_for()
        second = open_page("/#/segment?image=astronaut", origin=address)
        second.locator(".work").get_by_text("The server is busy; trying again in").wait_for()
        first.keyboard.press("Escape")
        settled(second)
        first.close()
        second.close()


@pytest.mark.refused
def test_a_server_that_was_gone_is_found_again(open_page, models):
    with served(models) as address:
        page = open_page(origin=address)
        settled(page)
    page.get_by_label("Tiles").check(force=True)
    page.locator(".work").get_by_text("cannot be reached").wait_for()
    with served(models, port=int(address.rpartition(":")[2])):
        page.locator(".summary").get_by_text("tiles").wait_for()
        page.close()


def test_a_key_is_asked_for_by_the_browser(open_page, models):
    with served(models, key="secret") as address:
        credentials = {"username": "me", "password": "secret"}
        page = open_page(origin=address, http_credentials=credentials)
        settled(page)  # scripts, images and events have the key as well
        page.close()


@pytest.mark.refused
def test_an_image_that_is_not_kept_any_more(open_page):
    page = open_page("/#/segment?image=forgotten")
    page.get_by_role("status").get_by_text("not kept any more").wait_for()
    settled(page)


def test_the_same_outside(open_page, path, weights, monkeypatch, tmp_path):
    page = open_page("/#/segment?mode=instance&proposals=5&presence=0.2")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, path)
    page.get_by_role("button", name="Copy as command").click()
    page.get_by_text("Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == (
        "unpool segment cat.png -o out --weights tiny --mode instance --proposals 5 "
        "--presence-threshold 0.2"
    )
    page.get_by_role("button", name="Copy as Python").click()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(path.read_bytes())
    (tmp_path / "tiny").symlink_to(weights)
    (tmp_path / "out").mkdir()
    page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.startsWith('import'))"
    )
    exec(page.evaluate("navigator.clipboard.readText()"), {})
    found = read_mask(tmp_path / "out/cat.png")
    own = unpool.load(weights)  # in the precision of this machine
    expected = own(path, mode="instance", proposals=5, presence_threshold=0.2).labels
    assert np.array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_what_is_saved(page, path, segmenter, tmp_path):
    from pycocotools.coco import COCO

    choose(page, path)
    files = {}
    page.keyboard.press("s")
    for link in page.locator(".menu a, .classes a").all():
        with page.expect_download() as download:
            link.click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        files[file.name] = file
    result = segmenter(path)
    assert np.array_equal(read_mask(files["cat.mask.png"]), result.labels)
    coco = COCO(str(files["cat.coco.json"]))
    masks = [coco.annToMask(entry) * entry["category_id"] for entry in coco.dataset["annotations"]]
    assert np.array_equal(sum(masks, np.zeros_like(result.labels)), result.labels)
    about = json.loads(files["cat.json"].read_text())
    assert about["labels"] == result.fractions()
    with Image.open(files["cat.overlay.jpg"]) as overlay:
        assert overlay.size == (90, 60)
    assert len(json.loads(files["cat.geojson"].read_text())["features"]) == len(masks)
    for k in np.unique(result.labels):
        with Image.open(files[f"cat-{CLASSES[k]}.cutout-{k}.png"]) as cut:
            assert np.count_nonzero(np.asarray(cut)[..., 3]) == np.count_nonzero(result.labels == k)
    assert io.BytesIO(files["cat.yolo.txt"].read_bytes()).readline()
