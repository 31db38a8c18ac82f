import json

from tests.cli.files import save
from unpool.models import from_pretrained


def test_weights_are_stored_as_int8(run, refused, weights):
    code, out, _ = run("convert", weights, "small", "--int8", "--json")
    assert code == 0
    facts = json.loads(out[0])
    assert (facts["weights"], facts["storage"], facts["ready"]) == ("small", "int8", True)
    assert facts["parameters"] == sum(p.numel() for p in from_pretrained("small")[0].parameters())
    assert "exists already; name a new folder" in refused("convert", weights, "small")
    code, out, _ = run("convert", weights, "large")
    assert out[1:] == ["weights: large", *out[2:]]
    save("cat.jpg")
    assert run("segment", "cat.jpg", "--weights", "small")[0] == 0
