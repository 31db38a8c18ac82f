"""`unpool visualize decode`, on small networks."""

import json
from pathlib import Path

import pytest

from tests.cli.visualize.files import class_fractions, names
from unpool.models import DeconvNet, save_pretrained


def test_decode(run, tiny):
    fractions = class_fractions(tiny, "in/0.png", (5, 0, 37, 32))
    label = max((1, 2), key=lambda n: fractions[n])
    args = ["decode", "in/0.png", "--weights", tiny, "--crop", "5,0,37,32", "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (0, [])
    result = json.loads(out[0])
    assert (result["class"], result["file"]) == (f"class {label}", "out/0.png")
    assert result["fraction"] == pytest.approx(fractions[label])
    layers = ["unpool2", "deconv2_1", "unpool1", "deconv1_1"]
    assert [one["layer"] for one in result["maps"]] == layers
    assert [one["size"] for one in result["maps"]] == [[16, 16], [16, 16], [32, 32], [32, 32]]
    assert json.loads(Path("out/0.json").read_text())["maps"] == result["maps"]
    assert names("out") == {"0.png", "0.json"}
    code, out, err = run(*args, "--class", label, "--unit", 2)
    assert (code, err) == (0, [])
    assert {one["unit"] for one in json.loads(Path("out/0.json").read_text())["maps"]} == {2}
    assert out[0].startswith(f"in/0.png: class {label}, ")


def test_missing_classes(run, refused, filled, tmp_path):
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    net.score.bias.data[2] = -1e6
    card = {"classes": ["ground", "cat", "dog"]}
    weights = save_pretrained(net, tmp_path / "dogless", card)
    Path("in/1.png").write_bytes(b"broken")
    for verb in (["decode"], ["project", "--layer", "score"]):
        args = [*verb, "in/0.png", "in/1.png", "--weights", weights, "--class"]
        code, out, err = run(*args, "dog")
        assert (code, out, len(err)) == (3, [], 2)
        assert "got class dog, which is predicted nowhere in this image; there is " in err[0]
        assert run(*args, "cat")[0] == 3
        assert "got class 'dot' for " in (message := refused(*args, "dot"))
        assert "did you mean 'dog'?" in message
        assert "which has 3" in refused(*args, "3")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("decode in/0.png --torch-model NETS:build --size 24", "model that segments"),
        ("decode in/0.png --weights TINY --unit 4", "got unit 4 of layer 'deconv2_1'"),
        ("decode in/0.png --weights TINY --crop 5,0,2,9", "wanted the left, upper, right and"),
        ("decode in/0.png --weights TINY --crop here", "wanted numbers with commas"),
        ("decode --weights TINY", "got no input; name files"),
    ],
)
def test_unusable_options(refused, tiny, args, message):
    assert message in refused(args.replace("TINY", tiny))
