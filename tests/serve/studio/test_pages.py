"""The shell over HTTP: static files and their headers, images, jobs."""

import io
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import unpool
from tests.cli.files import CLASSES
from tests.serve.test_app import IMAGE
from tests.serve.test_intake import png_header
from unpool.serve.app import make_app
from unpool.serve.studio import studio as shared

STATIC = Path(shared.__file__).parent / "static"
SOURCES = sorted(STATIC.rglob("*.js"))


def test_the_page_loads_only_from_here(studio):
    answer = studio.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert studio.get(path).status_code == 200, path
    assert "style=" not in answer.text
    assert not re.search(r"https?://", answer.text)


def test_scripts_are_scripts_and_change_at_once(studio):
    answer = studio.get("/static/js/main.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    again = studio.get("/static/js/main.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/js/nothing.js"):
        assert studio.get(path).status_code == 404


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_rules_of_the_scripts(source):
    text = source.read_text(encoding="utf-8")
    assert "innerHTML" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "everything comes from here"
    assert len(text.splitlines()) <= 250


def test_about(studio):
    about = studio.get("/api/about").json()
    assert about["version"] == unpool.__version__
    assert [row["name"] for row in about["weights"]["classes"]] == CLASSES
    assert about["weights"]["classes"][1]["color"] == [128, 0, 0]
    assert about["weights"]["modes"] == ["whole", "instance", "tiles"]
    assert about["weights"]["ensemble"] is False


def test_samples_are_images(studio):
    samples = studio.get("/api/samples").json()
    assert len(samples) == len(shared.SAMPLES)
    for sample in samples:
        assert studio.get(f"/api/images/{sample['id']}").json() == sample
        view = studio.get(f"/api/images/{sample['id']}/view.jpg")
        with Image.open(io.BytesIO(view.content)) as image:
            assert image.size == (sample["width"], sample["height"])


def test_images_come_back_upright_and_of_modest_size(studio):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 8
    Image.new("RGB", (2400, 1200), "red").save(file, "JPEG", exif=exif)
    answer = studio.post("/api/images?name=red.jpg", content=file.getvalue())
    assert answer.status_code == 201
    image = answer.json()
    assert image == {
        "id": image["id"], "width": 1200, "height": 2400, "name": "red.jpg", "seconds_kept": 1800,
    }  # fmt: skip
    view = Image.open(io.BytesIO(studio.get(f"/api/images/{image['id']}/view.jpg").content))
    assert view.size == (1024, 2048)
    assert view.getpixel((9, 9)) == (254, 0, 0)


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", 400, "got no image"),
        (b"hello", 415, "not an image"),
        (IMAGE[:-300], 415, "broken or cut short"),
        (png_header(9000, 9000), 413, "got 9000 x 9000 pixels"),
        (bytes(21 * 2**20), 413, "more than 20 MiB"),
    ],
)
def test_what_cannot_be_opened(studio, data, code, message):
    answer = studio.post("/api/images", content=data)
    assert answer.status_code == code, answer.text
    assert message in answer.json()["error"]


def test_unknown_ids(studio):
    for method, path in (
        ("GET", "/api/images/x"), ("GET", "/api/images/x/view.jpg"), ("GET", "/api/files/x"),
        ("GET", "/api/jobs/x/events"), ("DELETE", "/api/jobs/x"), ("GET", "/api/results/x"),
        ("POST", "/api/images/x/segment"), ("GET", "/api/results/x/mask.png"),
    ):  # fmt: skip
        answer = studio.request(method, path)
        assert answer.status_code == 404, path
        assert "any more" in answer.json()["error"]


PARTS = st.sampled_from(
    ["images", "results", "jobs", "files", "about", "samples", "chelsea", "segment", "events",
     "view.jpg", "mask.png", "cutout-1.png", "..", "%2e%2e", "%00", "", "x" * 300]
)  # fmt: skip


@settings(max_examples=80)
@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT"]),
    st.lists(st.one_of(PARTS, st.text(max_size=8)), max_size=4),
    st.dictionaries(st.sampled_from(["mode", "crf", "name", "download"]), st.text(max_size=8)),
    st.one_of(st.just(IMAGE), st.binary(max_size=40)),
)
def test_whatever_is_asked_there_is_an_answer(studio, method, parts, query, data):
    path = "/api/" + "/".join(quote(part, safe="%") for part in parts)
    answer = studio.request(method, path, params=query, content=data)
    assert answer.status_code < 500, (path, answer.text)
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"]
        assert str(STATIC.parents[2]) not in answer.text


def test_pages_of_other_sites_can_do_nothing(studio):
    evil = {"origin": "http://evil.example"}
    assert studio.post("/api/images", content=IMAGE, headers=evil).status_code == 403
    assert studio.delete("/api/jobs/x", headers=evil).status_code == 403
    assert studio.get("/", headers={"host": "evil.example"}).status_code == 421


def test_a_service_has_no_pages(calls):
    assert calls.get("/").status_code == 404
    assert calls.get("/api/about").status_code == 404


def test_logs_have_no_ids_and_no_names(models, waits):
    from starlette.testclient import TestClient

    lines = []
    app = make_app(models, load=lambda: None, studio=shared.Settings(), log=lines.append)
    with TestClient(app, "http://127.0.0.1") as client:
        image = client.post("/api/images?name=secret.png", content=IMAGE).json()["id"]
        client.get(f"/api/images/{image}")
        client.get("/static/js/main.js")
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "POST /api/images 201", "GET /api/images/{id} 200", "GET other 200",
    ]  # fmt: skip
