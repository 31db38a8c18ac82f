"""Routes and their codes, as a client sees them."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.cli.files import photo
from tests.serve.test_intake import png_header
from unpool.errors import WeightsError
from unpool.serve.app import explain, make_app


def png(width=40, height=30):
    file = io.BytesIO()
    photo(width, height).save(file, "PNG")
    return file.getvalue()


IMAGE = png()


def test_health(calls):
    assert (calls.get("/livez").status_code, calls.get("/livez").text) == (200, "ok")
    assert (calls.get("/readyz").status_code, calls.get("/readyz").text) == (200, "ok")


@pytest.mark.parametrize(
    ("method", "path", "data", "code", "message"),
    [
        ("GET", "/nowhere", b"", 404, "Not Found"),
        ("GET", "/v1/segment", b"", 405, "Method Not Allowed"),
        ("POST", "/v1/segment/", IMAGE, 404, "Not Found"),
        ("POST", "/v1/segment", b"", 400, "got no image; send it as the body"),
        ("POST", "/v1/segment", b"hello", 415, "not an image of a known format"),
        ("POST", "/v1/segment", IMAGE[:-300], 415, "broken or cut short"),
        ("POST", "/v1/segment", png_header(9000, 9000), 413, "got 9000 x 9000 pixels"),
        ("POST", "/v1/segment", bytes(21 * 2**20), 413, "more than 20 MiB"),
        ("POST", "/v1/segment?mode=all", IMAGE, 422, "did you mean 'tiles'|the choices are"),
        ("POST", "/v1/restore?psf=gaussian:1", b"hello", 415, "image"),
    ],
)
def test_refusals(calls, method, path, data, code, message):
    answer = calls.request(method, path, content=data)
    assert answer.status_code == code, answer.text
    assert list(answer.json()) == ["error"]
    assert any(part in answer.json()["error"] for part in message.split("|"))


def test_formats_by_the_header_accept(calls):
    for accept, kind in (
        ("application/json", "application/json"),
        ("image/jpeg", "image/jpeg"),
        ("*/*", "image/png"),
        ("text/html", "image/png"),
    ):
        answer = calls.post("/v1/segment", content=IMAGE, headers={"accept": accept})
        assert answer.headers["content-type"] == kind
    answer = calls.post("/v1/segment?format=coco", content=IMAGE, headers={"accept": "image/jpeg"})
    assert answer.json()["images"] == [{"id": 1, "file_name": "image", "width": 40, "height": 30}]


def test_names_of_files_are_not_paths(calls):
    file = {"file": ("../../etc/cat.png", IMAGE)}
    answer = calls.post("/v1/segment?format=coco", files=file)
    assert answer.json()["images"][0]["file_name"] == "cat.png"


def test_no_answer_has_a_path_of_the_server(calls, weights):
    folder = weights.rpartition("/")[0]
    for path in ("segment?format=json", "segment?preset=edeconvnet", "project?class=cow",
                 "segment?mode=x", "project?layer=x"):  # fmt: skip
        answer = calls.post(f"/v1/{path}", content=IMAGE)
        assert folder not in answer.text + str(answer.headers), path
        assert answer.status_code < 500, answer.text


def test_before_the_weights_are_loaded(models, waits):
    import threading

    gate = threading.Event()
    with TestClient(make_app(models, load=gate.wait), "http://127.0.0.1") as client:
        assert client.get("/livez").status_code == 200
        for answer in (client.get("/readyz"), client.post("/v1/segment", content=IMAGE)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        gate.set()
        waits(lambda: client.get("/readyz").status_code == 200)


def test_weights_that_fail_do_not_get_ready(models, waits):
    def load():
        raise WeightsError("damaged")

    ended = []
    app = make_app(models, load=load, failed=lambda: ended.append(True))
    with TestClient(app, "http://127.0.0.1") as client:
        waits(lambda: ended)
        assert client.get("/readyz").status_code == 503
    assert str(app.service.engine.error) == "damaged"


def test_the_deadline(models, waits):
    def load():
        models.segmenter()

    app = make_app(models, load=load, seconds=0.001)
    with TestClient(app, "http://127.0.0.1") as client:
        waits(lambda: app.service.engine.ready)
        answer = client.post("/v1/segment", content=png(400, 300))
        assert answer.status_code == 504
        assert "ask for less" in answer.json()["error"]
        waits(lambda: not app.service.engine.jobs)


def test_the_key_and_the_log(models):
    lines = []
    app = make_app(models, key="secret", log=lines.append, load=lambda: None)
    with TestClient(app, "http://127.0.0.1") as client:
        assert client.get("/metrics").status_code == 401
        assert client.post("/v1/segment").status_code == 401
        bearer = {"authorization": "Bearer secret"}
        assert client.get("/metrics", headers=bearer).status_code == 200
        assert client.get("/livez").status_code == 200
        assert client.get("/secret-path-of-the-client").status_code == 401
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines] == [
        "POST /v1/segment 401", "GET other 401",
    ]  # fmt: skip


def test_faults_say_nothing_of_the_inside():
    status, message, _ = explain(RuntimeError("/home/me/secret.py"))
    assert (status, "secret" in message) == (500, False)
    assert explain(WeightsError("/home/me/weights"))[:2] == (status, message)
    assert explain(MemoryError())[0] == 503
    assert explain(RuntimeError("can't allocate memory: you tried to"))[0] == 503


NAMES = st.sampled_from(
    ["mode", "preset", "crf", "format", "psf", "layer", "unit", "place", "class", "style", "rule",
     "change", "tile", "scale", "proposals", "steps", "method", "gamma", "from", "x"]
)  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=12),
    st.integers(-(10**6), 10**6).map(str),
    st.floats().map(str),
    st.sampled_from(["whole", "tiles", "instance", "gaussian:1", "disk:2", "max", "1,2", "cat",
                     "trunk.stages.1", "score", "0=1", "zoom=1", "json", "coco", "rl", "srgb"]),
)  # fmt: skip


@settings(max_examples=40)
@given(
    st.sampled_from(["segment", "restore", "project", "generate"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=3),
    st.one_of(st.just(IMAGE), st.binary(max_size=80), st.integers(0, 900).map(
        lambda at: IMAGE[:at] + b"\xff" + IMAGE[at + 1 :])),
    st.sampled_from(["image/png", "multipart/form-data; boundary=x", "application/json", ""]),
)  # fmt: skip
def test_whatever_is_asked_there_is_an_answer(calls, path, options, data, kind):
    answer = calls.post(f"/v1/{path}", params=options, content=data, headers={"content-type": kind})
    assert answer.status_code in (200, 400, 413, 415, 422), (options, answer.text)
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]
