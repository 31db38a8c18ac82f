"""The backend of Label Studio: its requests, its answers, and which images it may name."""

import base64
import http.server
import json
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.serve.test_app import IMAGE
from unpool.errors import ImageError, OptionError
from unpool.formats.label_studio import labeling_config
from unpool.formats.rle import decode_brush
from unpool.serve.protocols import label_studio
from unpool.serve.protocols.label_studio import Images, find_tags

CONFIG = labeling_config(["background", "cat", "dog"]).replace("dog", "Background")
SDK = Path(__file__).parents[3] / ".venv-label-studio/bin/python"
DATA = "data:image/png;base64," + base64.b64encode(IMAGE).decode()


def ask(calls, *addresses, config=CONFIG):
    tasks = [{"id": i, "data": {"image": address}} for i, address in enumerate(addresses)]
    return calls.post(
        "/label-studio/predict", json={"tasks": tasks, "label_config": config, "project": "7.1"}
    )


def test_predictions_are_those_of_the_segmenter(calls, models):
    result = models.segmenter()(IMAGE)
    answer = ask(calls, DATA)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["results"]
    assert found["model_version"] == f"tiny-{models.digest[:8]}"
    labels = {"cat": "cat", "background": "Background"}
    assert [one["value"]["brushlabels"] for one in found["result"]] == [
        [labels[name]] for name in result.fractions() if name in labels
    ]
    for one in found["result"]:
        assert (one["from_name"], one["to_name"], one["type"]) == ("label", "image", "brushlabels")
        assert (one["original_width"], one["original_height"]) == (40, 30)
        name = one["value"]["brushlabels"][0].casefold()
        mask = decode_brush(one["value"]["rle"], 30, 40)
        assert np.array_equal(mask, result.labels == result.classes.index(name))
    scores = [one["score"] for one in found["result"]]
    assert found["score"] == pytest.approx(np.mean(scores), abs=1e-4)


@pytest.mark.skipif(not SDK.exists(), reason="make test-label-studio installs Label Studio's SDK")
def test_label_studio_accepts_the_predictions(calls, models):
    result = models.segmenter()(IMAGE)
    predictions = ask(calls, DATA, "data:,x").json()["results"]
    found = check(CONFIG, predictions)
    assert found["errors"] == []
    classes = [one["value"]["brushlabels"][0].casefold() for one in predictions[0]["result"]]
    assert len(classes) == len(found["masks"]) > 0
    for name, mask in zip(classes, found["masks"], strict=True):
        there = result.labels == result.classes.index(name)
        assert np.array_equal(np.reshape(mask, there.shape), there)
    assert check(CONFIG.replace('"cat"', '"cow"'), predictions)["errors"]  # the checker checks


def check(config, predictions):
    """What Label Studio's SDK finds, see `check_predictions`."""
    script = Path(__file__).with_name("check_predictions.py")
    given = json.dumps({"config": config, "predictions": predictions})
    done = subprocess.run([SDK, script], input=given, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_result_for_each_task_in_order(calls):
    broken = "data:image/png;base64,aGVsbG8="
    answer = ask(calls, broken, DATA, "https://evil.example/a.png", None, "data:,x")
    assert [bool(one["result"]) for one in answer.json()["results"]] == [
        False, True, False, False, False,
    ]  # fmt: skip


def test_without_time_the_rest_is_empty(calls, monkeypatch):
    monkeypatch.setattr(label_studio, "_SECONDS", -1.0)
    assert [one["result"] for one in ask(calls, DATA, DATA).json()["results"]] == [[], []]


def test_the_other_requests(calls, models):
    assert calls.get("/label-studio/health").json() == {"status": "UP", "model_class": "unpool"}
    given = {"project": "7.1", "schema": CONFIG, "hostname": "http://evil.example"}
    version = {"model_version": f"tiny-{models.digest[:8]}"}
    assert calls.post("/label-studio/setup", json=given).json() == version
    answer = calls.post("/label-studio/webhook", json={"action": "PROJECT_UPDATED"})
    assert answer.json() == {"status": "Unknown event"}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize("config", [None, "", "<View>", BOMB, "<View/>" + " " * 2**20])
def test_configs_that_cannot_be_read(calls, config):
    answer = ask(calls, DATA, config=config)
    assert answer.status_code == 422
    assert "cannot be read" in answer.json()["error"]


def test_configs_of_other_labels(calls):
    answer = ask(calls, DATA, config=CONFIG.replace("BrushLabels", "PolygonLabels"))
    assert answer.status_code == 422
    assert "without BrushLabels" in answer.json()["error"]


def test_tags():
    config = """<View><!-- masks --><Image name="img" value="$photo"/><Image name="b" value="$c"/>
    <BrushLabels name="tag" toName="img"><Label value=" Cat "/></BrushLabels></View>"""
    assert find_tags(config) == ("tag", "img", "photo", {"cat": " Cat "})


@pytest.fixture
def studio():
    """Something like Label Studio: gives an image for a token, redirects, and is endless."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("authorization")))
            code = 200 if self.headers.get("authorization") == "Token secret" else 401
            code = 302 if "s3" in self.path else code
            body = b"" if code != 200 else bytes(21 * 2**20) if "large" in self.path else IMAGE
            self.send_response(code)
            if code == 302:
                self.send_header("location", "/data/upload/1/a.png")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # nobody reads all of it
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_uploads_of_label_studio(studio):
    origin, seen = studio
    images = Images(origin, "secret")
    assert images.read("/data/upload/7/a%20b.png?x=1") == IMAGE
    assert images.read(f"{origin}/data/upload/7/a.png") == IMAGE
    assert seen == [
        ("/data/upload/7/a%20b.png?x=1", "Token secret"), ("/data/upload/7/a.png", "Token secret"),
    ]  # fmt: skip
    with pytest.raises(ImageError, match="answered 302 for an image; it is in other storage"):
        images.read("/data/s3")
    with pytest.raises(ImageError, match="answered 401 for an image; set LABEL_STUDIO_API_KEY"):
        Images(origin).read("/data/upload/7/a.png")
    with pytest.raises(ImageError, match="more than 20 MiB"):
        images.read("/data/large")


@pytest.mark.parametrize(
    "address",
    ["http://evil.example/data/a.png", "//evil.example/data/a.png", "/etc/passwd", "a.png",
     "file:///data/a.png", "/data/../api/users", "/data/%2e%2e/api/users", "ftp://127.0.0.1/data/a",
     "http://127.0.0.1:1/data/a.png", "s3://bucket/a.png", "", "http://[", "/data"],
)  # fmt: skip
def test_addresses_are_not_those_of_a_request(studio, address):
    origin, seen = studio
    with pytest.raises(ImageError, match=r"not of Label Studio's own files|damaged address"):
        Images(origin, "secret").read(address)
    assert not seen


def test_local_storage(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/a b.png").write_bytes(IMAGE)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    images = Images(folder=folder)
    assert images.read("/data/local-files/?d=sub/a%20b.png") == IMAGE
    for name in ("../secret.png", "link.png", "%2Fetc%2Fpasswd", "", "sub", "nowhere.png", "a%00"):
        with pytest.raises(ImageError, match="not in the server's folder of images") as error:
            images.read(f"/data/local-files/?d={name}")
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(ImageError, match="start the server with Label Studio"):
        images.read("/data/upload/1/a.png")
    with pytest.raises(ImageError, match="start the server with Label Studio"):
        Images().read("/data/local-files/?d=sub/a%20b.png")


def test_what_the_operator_gives_is_checked(tmp_path):
    for origin in ("localhost:8080", "ftp://x", "http://"):
        with pytest.raises(OptionError, match="wanted one such as http://localhost:8080"):
            Images(origin)
    with pytest.raises(OptionError, match="does not exist"):
        Images(folder=tmp_path / "nowhere")
    with pytest.raises(ImageError, match="cannot be reached"):
        Images("http://127.0.0.1:9").read("/data/a.png")
