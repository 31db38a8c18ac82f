"""What huggingface_hub's client sends, and reads."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.serve.test_app import IMAGE

ROUTE = "/models/tiny"


def read(answer):
    """Labels, scores and masks, as the client reads them."""
    assert answer.status_code == 200, answer.text
    for one in answer.json():
        assert set(one) == {"label", "score", "mask"}
        yield one["label"], one["score"], Image.open(io.BytesIO(base64.b64decode(one["mask"])))


def test_masks_are_those_of_the_segmenter(calls, models):
    result = models.segmenter()(IMAGE)
    found = [*read(calls.post(ROUTE, content=IMAGE))]
    assert [label for label, _, _ in found] == list(result.fractions())
    for label, score, mask in found:
        there = result.labels == result.classes.index(label)
        assert (mask.mode, mask.size) == ("L", (40, 30))
        assert np.array_equal(np.asarray(mask), there * 255)
        assert score == pytest.approx(result.confidence[there].mean(), abs=1e-4)


def test_the_client_of_huggingface_hub(running, models, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import InferenceClient

    result = models.segmenter()(IMAGE)
    client = InferenceClient(model=f"http://127.0.0.1:{running().port}{ROUTE}")
    found = client.image_segmentation(IMAGE)
    assert [one.label for one in found] == list(result.fractions())
    for one in found:
        there = result.labels == result.classes.index(one.label)
        assert np.array_equal(np.asarray(one.mask), there * 255)
        assert one.score == pytest.approx(result.confidence[there].mean(), abs=1e-4)
    best = max(one.score for one in found)
    assert [one.score for one in client.image_segmentation(IMAGE, threshold=best)] == [best]


def test_json_with_parameters(calls):
    body = {"inputs": base64.b64encode(IMAGE).decode()}
    every = calls.post(ROUTE, content=IMAGE).json()
    assert calls.post(ROUTE, json=body).json() == every
    assert calls.post(ROUTE, json={**body, "parameters": {"subtask": "semantic"}}).json() == every
    scores = sorted(one["score"] for one in every)
    parameters = {"threshold": scores[-1], "mask_threshold": 0.5}
    best = calls.post(ROUTE, json={**body, "parameters": parameters}).json()
    assert [one["score"] for one in best] == [scores[-1]]


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"inputs": "???"}, 400, "in base64 as 'inputs'"),
        ({}, 400, "in base64 as 'inputs'"),
        ({"inputs": 3}, 400, "in base64 as 'inputs'"),
        ([], 400, "no JSON object"),
        ({"inputs": "aGVsbG8="}, 415, "not an image"),
        ({"inputs": "", "parameters": 3}, 400, "parameters"),
        ({"inputs": "", "parameters": {"subtask": "panoptic"}}, 422, "wanted semantic"),
        ({"inputs": "", "parameters": {"threshold": "x"}}, 422, "number from 0 to 1"),
    ],
)
def test_refusals(calls, body, code, message):
    answer = calls.post(ROUTE, json=body)
    assert answer.status_code == code
    assert message in answer.json()["error"]


def test_damaged_json_and_another_name(calls):
    headers = {"content-type": "application/json"}
    for body in (b"{", b"[" * 100_000, b"\xff"):
        assert calls.post(ROUTE, content=body, headers=headers).status_code == 400
    assert calls.post("/models/other", content=IMAGE).status_code == 404
