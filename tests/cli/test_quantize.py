import json

import pytest
import torch

from tests.cli.files import save
from unpool.devices import find_int8_obstacle


@pytest.mark.skipif(
    find_int8_obstacle(torch.device("cpu")) is not None, reason="the processor has no VNNI"
)
def test_weights_are_prepared_and_used(run, refused, weights):
    for i in range(3):
        save(f"photos/{i}.jpg")
    command = ["quantize", weights, "--data", "photos", "--images", 2, "--agreement", 0]
    code, out, _ = run(*command, "-o", "small", "--json")
    assert code == 0
    facts = json.loads(out[0])
    assert (facts["weights"], facts["images"], facts["int8"]) == ("small", 2, 5)
    assert 0 <= facts["labels_equal"] <= 1
    code, out, _ = run(*command, "-o", "again")
    assert out[0].startswith("weights: again")
    image = "photos/0.jpg"
    code, out, _ = run("segment", image, "--weights", "small", "--precision", "int8", "-o", "out")
    assert code == 0
    message = refused("segment", image, "--weights", weights, "--precision", "int8", "-o", "out")
    assert "unpool quantize" in message
