"""The parsers that are fuzzed: for each, valid files, and a call through its public door."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.containers import FORMATS, mutate
from tests.fuzz.seeds import data, images, models, others, requests, weights
from tests.fuzz.seeds.common import PHOTO, Files


class Parser(NamedTuple):
    """A parser, and how it is fuzzed."""

    seeds: Callable[[], list[Files]]
    run: Callable[[Path], object]  #: reads the files in a folder, through the public door
    damaged: tuple[str, ...]  #: suffixes of the files to damage
    repair: Callable[[Files], Files] = lambda files: files  #: digests, so that more is read
    writes: bool = False  #: whether it may change its folder
    count: int = 300  #: inputs in `make test`
    seconds: float = 10.0  #: of processor time that an input may take
    waiting: float = 60.0  #: the same on the clock, for a parser that waits
    memory: int = 1536 * 2**20  #: bytes that an input may take besides those of the libraries


def valid_files(parser: Parser) -> list[Files]:
    """The valid folders of a parser."""
    return [parser.repair(files) for files in parser.seeds()]


def make_input(parser: Parser, valid: list[Files], random: Random) -> Files:
    """One of the valid folders with one or two of its files damaged."""
    files = dict(random.choice(valid))
    names = sorted(name for name in files if name.endswith(parser.damaged))
    for name in random.sample(names, min(len(names), random.choice((1, 1, 1, 2)))):
        if random.random() < 0.05:  # the end of another file of the kind
            other = random.choice(valid).get(name, files[name])
            files[name] = files[name][: random.randint(0, len(files[name]))] + other[-50:]
        files[name] = mutate(files[name], name[name.rfind(".") :], random)
    return parser.repair(files)


def require_line(text: str) -> None:
    """Messages are single lines that a terminal can show."""
    assert text.strip(), "an empty message"
    assert len(text.splitlines()) == 1, f"a message of several lines: {text[:200]!r}"
    assert text.isprintable(), f"a message with control characters: {text[:200]!r}"
    assert len(text) < 3000, f"a message of {len(text)} characters: {text[:200]!r}"


# Doors --------------------------------------------------------------------------------------------


def _only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _image(folder: Path) -> None:
    from unpool.vision.images import image_size, read_image

    path = _only(folder)
    image = read_image(path)
    assert image_size(path) == image.shape[:2]


def _stack(folder: Path) -> None:
    from unpool.vision.psf import find_psf
    from unpool.vision.stacks import read_stack

    stack = read_stack(_only(folder))
    for values, frame in zip(stack, stack.frames, strict=True):
        assert values.shape == frame.shape
        assert values.dtype == frame.dtype
    find_psf(_only(folder))


def _mask(folder: Path) -> None:
    from unpool.vision.images import read_mask, read_orientation

    read_mask(_only(folder))
    read_orientation(_only(folder))


def _weights(folder: Path) -> None:
    import unpool
    from unpool.cards import read_card

    card = read_card(folder)
    json.dumps(card.to_dict())
    _ = card.mean, card.held_out
    loaded = unpool.load(folder)
    if isinstance(loaded, unpool.Segmenter):
        result = loaded(PHOTO)
        _ = result.fractions()


def _card(folder: Path) -> None:
    from unpool.segment.ensemble import load

    _weights(folder)
    if (folder / "fcn").is_dir():
        load(folder, "edeconvnet")(PHOTO)


def _tensors(folder: Path) -> None:
    from unpool.models.weights import load_tensors

    load_tensors(weights.small_net(), _only(folder))


def _caffemodel(folder: Path) -> None:
    from unpool.models.caffe import load_caffemodel

    load_caffemodel(_only(folder), "folded")


def _export(folder: Path) -> None:
    import unpool

    unpool.load(folder / "n.onnx")(PHOTO)


def _checkpoint(folder: Path) -> None:
    from tests.training.test_task import RECIPE, Line
    from unpool.training.task import train

    train(Line(RECIPE), folder / "run", resume=True, report=False)


def _recipe(folder: Path) -> None:
    from unpool.errors import UnpoolError
    from unpool.recipes import RECIPES, find_recipe, override
    from unpool.training.run import read_arguments

    name = (folder / "name.txt").read_text("latin-1")
    recipe = find_recipe(name) if name in RECIPES else RECIPES["finetune"]
    settings = (folder / "settings.txt").read_text("utf-8", "surrogateescape").split("\n")
    for setting in settings:
        with suppress(UnpoolError):
            json.dumps(override(recipe, [setting]).to_json())
    read_arguments(folder / "run")
    override(recipe, settings)
    find_recipe(name)


def _scores(folder: Path) -> None:
    from unpool.data.datasets import Sample, read_soft
    from unpool.errors import UnpoolError
    from unpool.segment.scores import read_scores

    with suppress(UnpoolError):
        read_scores(_only(folder), probabilities=True)
    with suppress(UnpoolError):
        read_soft(Sample("s", _only(folder), _only(folder), soft=_only(folder)), 3)
    read_scores(_only(folder))


def _data(folder: Path) -> None:
    from unpool.data import check_data, open_data, read_instances, read_sample
    from unpool.errors import UnpoolError

    for finding in check_data(folder).findings:
        require_line(finding.where)
        require_line(finding.message)
    for split in ("train", "val"):
        missing: dict[str, str] = {}
        with suppress(UnpoolError):
            opened = open_data(folder, split, missing)
            for sample in opened.samples:
                with suppress(UnpoolError):
                    read_sample(sample, len(opened.classes))
                    read_instances(sample, len(opened.classes))
        for message in missing.values():
            require_line(message)
    open_data(folder, "val")


def _list(folder: Path) -> None:
    from unpool.vision.sources import find_images

    found = find_images([str(folder / "list.txt")], folder / "out")
    for entry in found.unusable:
        require_line(entry.error)
    assert all(".." not in source.name.parts for source in found.sources)


def _tar(folder: Path) -> None:
    from unpool.errors import ImageError
    from unpool.vision.sources import find_images

    found = find_images([str(folder / "a.tar")], folder / "out", archives=True)
    for entry in found.unusable:
        require_line(entry.error)
    for source in found.sources:
        assert not {"..", "/"} & {*source.name.parts}
        source.read()
    if found.unusable:
        raise ImageError(found.unusable[0].error)


def _image_classes(folder: Path) -> None:
    from unpool.data.weak import FILE, read_image_classes

    found = read_image_classes(folder / FILE, ["background", "cat", "dog"])
    assert all(set(shown) <= {1, 2} for shown in found.values())


def _map(folder: Path) -> None:
    from unpool.vision.georeference import read_georeference

    for path in folder.glob("a.???"):
        if path.suffix[-1] != "w":
            read_georeference(path)


def _video(folder: Path) -> None:
    from unpool.vision.video import read_clip, read_frames

    read_clip(_only(folder))
    for _, _frame in zip(range(20), read_frames(_only(folder)), strict=False):
        pass


def _views(folder: Path) -> None:
    from unpool.rendering.dataset import open_chairs, read_credits, read_views

    read_credits(folder)
    read_views(open_chairs(folder), 16)


def _ledger(folder: Path) -> None:
    from unpool.batch.ledger import Ledger

    ledger = Ledger(folder, {"mode": "whole"})
    for name in "abc":
        json.dumps(ledger.find(name, "content"))
    ledger.add("c", "content", {}, [])
    ledger.close()
    assert Ledger(folder, {"mode": "whole"}).find("c", "content") == {}


def _archive(folder: Path) -> None:
    from unpool.errors import UnpoolError
    from unpool.rendering.write import open_models, read_model

    with open_models(folder / "m.zip") as models:
        for model in models:
            json.dumps(model.credits())
            with suppress(UnpoolError):
                read_model(model)
    assert {path.name for path in folder.iterdir()} == {"m.zip"}


def _request(folder: Path) -> None:
    from tests.fuzz.service import ask

    bodies = [path.read_bytes() for path in folder.glob("body.*")]
    ask((folder / "head.txt").read_bytes(), b"".join(bodies))


def _mesh(folder: Path) -> None:
    from unpool.rendering.meshes import read_mesh
    from unpool.rendering.render import render_views

    (path,) = folder.glob("a.*")
    mesh = read_mesh(path)
    for _ in render_views(mesh, [(30.0, 20.0)], 8):
        pass
    for name in mesh.missing:
        require_line(name)


def _right_digests(files: Files) -> Files:
    """Cards with the digests of their tensors or networks, so that these are read."""
    repaired = dict(files)
    for name in files:
        with suppress(Exception):  # a card that is damaged too much stays so
            card = json.loads(files[name])
            if name.endswith("n.card.json"):
                digest = hashlib.sha256(files["n.onnx"]).hexdigest()
                card["exports"]["onnx"]["sha256"][".onnx"] = digest
            elif name.endswith("card.json"):
                tensors = files[name.replace("card.json", "model.safetensors")]
                card["sha256"] = hashlib.sha256(tensors).hexdigest()
            repaired[name] = json.dumps(card).encode()
    return repaired


_ANY = (*FORMATS, ".txt", ".png")
_PAIRS = ("VOC", "plain", "ADE20K", "mmseg", "FiftyOne", "CamVid", "brush")

PARSERS: dict[str, Parser] = {
    "image": Parser(images.images, _image, ("",)),
    "mask": Parser(images.masks, _mask, ("",)),
    "stack": Parser(images.images, _stack, ("",)),
    "caffemodel": Parser(weights.caffemodels, _caffemodel, (".caffemodel",), count=60),
    "safetensors": Parser(weights.tensors, _tensors, ("",), count=100),
    "weights": Parser(weights.weights, _weights, (".safetensors",), _right_digests, count=60),
    "card": Parser(weights.weights, _card, (".json",), _right_digests, count=60),
    "checkpoint": Parser(
        weights.checkpoints, _checkpoint, (".pt", ".json", ".jsonl"), writes=True, count=20
    ),
    "onnx": Parser(weights.exports, _export, (".json", ".onnx"), _right_digests, count=100),
    "recipe": Parser(weights.recipes, _recipe, ("",), count=100),
    "scores": Parser(weights.scores, _scores, ("",)),
    "coco": Parser(lambda: data.coco() + others.examples("COCO"), _data, (".json",), count=60),
    "sbd": Parser(data.sbd, _data, (".mat",), count=60),
    "layouts": Parser(lambda: data.layouts() + others.examples(*_PAIRS), _data, _ANY, count=60),
    "labelme": Parser(lambda: others.examples("labelme"), _data, (".json",), count=60),
    "label-studio": Parser(lambda: others.examples("Label Studio"), _data, (".json",), count=60),
    "yolo": Parser(lambda: others.examples("YOLO"), _data, (".txt", ".yaml"), count=60),
    "list": Parser(others.lists, _list, (".txt",)),
    "tar": Parser(others.tars, _tar, (".tar",), count=60),
    "image-classes": Parser(others.image_classes, _image_classes, (".txt",)),
    "map": Parser(others.maps, _map, ("",)),
    "video": Parser(others.videos, _video, ("",), count=100),
    "views": Parser(others.views, _views, ("",), count=100),
    "ledger": Parser(others.ledgers, _ledger, (".jsonl",), writes=True),
    "archive": Parser(others.archives, _archive, ("",)),
    "obj": Parser(models.objs, _mesh, ("",)),
    "glb": Parser(models.glbs, _mesh, ("",)),
    "ply": Parser(models.plys, _mesh, ("",)),
    "http": Parser(requests.requests, _request, ("",), count=150),
}
"""All parsers, by name."""
