"""Open Inference v2: requests as its clients send them, in JSON and with binary data."""

import base64
import json

import numpy as np
import pytest

from tests.serve.test_app import IMAGE
from unpool.serve.protocols import open_inference

ROUTE = "/v2/models/tiny"
TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES"}
TEXT = base64.b64encode(IMAGE).decode()
INPUT = {**TENSOR, "data": [TEXT], "parameters": {"content_type": "base64"}}


def test_the_server_and_the_model(calls, models):
    assert calls.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert calls.get("/v2/health/live").json() == {"live": True}
    for path in ("/v2/health/ready", f"{ROUTE}/ready"):
        assert calls.get(path).json() == {"ready": True}
    about = calls.get(ROUTE).json()
    assert (about["name"], about["versions"]) == ("tiny", [models.digest[:8]])
    assert about["inputs"] == [TENSOR]
    assert about["outputs"] == [{"name": "labels", "datatype": "UINT8", "shape": [1, -1, -1]}]
    assert calls.get("/v2/models/other").status_code == 404


def test_labels_in_json(calls, models):
    result = models.segmenter()(IMAGE, presence_threshold=0.4)
    parameters = {"presence-threshold": 0.4}
    answer = calls.post(
        f"{ROUTE}/infer", json={"id": "7", "inputs": [INPUT], "parameters": parameters}
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["id"], found["model_name"]) == ("7", "tiny")
    assert found["parameters"]["classes"].split(",") == list(result.classes)
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"]) == ("labels", "UINT8")
    assert np.array_equal(np.reshape(output["data"], output["shape"]), result.labels[None])


@pytest.mark.parametrize("asked", ["output", "request"])
def test_binary_data(calls, models, asked):
    wanted = {
        "output": {"outputs": [{"name": "labels", "parameters": {"binary_data": True}}]},
        "request": {"parameters": {"binary_data_output": True}},
    }[asked]
    size = len(IMAGE) + 4
    head = json.dumps(
        {"inputs": [{**TENSOR, "parameters": {"binary_data_size": size}}], **wanted}
    ).encode()
    body = head + len(IMAGE).to_bytes(4, "little") + IMAGE
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = calls.post(f"{ROUTE}/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    data = answer.content[length:]
    assert len(data) == output["parameters"]["binary_data_size"]
    labels = np.frombuffer(data, np.uint8).reshape(output["shape"])
    assert np.array_equal(labels, models.segmenter()(IMAGE).labels[None])


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ([], 400, "no JSON object"),
        ({}, 400, "got other inputs"),
        ({"inputs": [INPUT, INPUT]}, 400, "got other inputs"),
        ({"inputs": [{**INPUT, "datatype": "FP32"}]}, 400, "got other inputs"),
        ({"inputs": [{**INPUT, "shape": [2]}]}, 400, "got other inputs"),
        ({"inputs": [TENSOR]}, 400, "got no image"),
        ({"inputs": [{**TENSOR, "data": ["?"]}]}, 400, "got no image"),
        ({"inputs": [{**TENSOR, "data": ["aGVsbG8="]}]}, 415, "not an image"),
        ({"inputs": [INPUT], "parameters": 3}, 400, "parameters"),
        ({"inputs": [INPUT], "parameters": {"mood": "x"}}, 422, "did you mean 'mode'"),
        ({"inputs": [INPUT], "parameters": {"format": "coco"}}, 422, "format"),
        ({"inputs": [INPUT], "outputs": [{"name": "logits"}]}, 422, "got other outputs"),
    ],
)
def test_refusals(calls, body, code, message):
    answer = calls.post(f"{ROUTE}/infer", json=body)
    assert answer.status_code == code, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "9" * 5000, "0" * 5000])
def test_lengths_that_are_wrong(calls, length):
    headers = {"Inference-Header-Content-Length": length}
    body = json.dumps({"inputs": [INPUT]}).encode()
    assert calls.post(f"{ROUTE}/infer", content=body, headers=headers).status_code == 400


def test_binary_data_that_is_cut(calls):
    head = json.dumps({"inputs": [TENSOR]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    for rest in (b"", b"\1", b"\5\0\0\0abc", b"\xff\xff\xff\xff"):
        answer = calls.post(f"{ROUTE}/infer", content=head + rest, headers=headers)
        assert answer.status_code == 400


def test_labels_beyond_json(calls, monkeypatch):
    monkeypatch.setattr(open_inference, "MAX_JSON_LABELS", 40 * 30 - 1)
    answer = calls.post(f"{ROUTE}/infer", json={"inputs": [INPUT]})
    assert answer.status_code == 422
    assert "ask for binary_data" in answer.json()["error"]
