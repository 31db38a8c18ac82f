"""What the service computes: an image or options in, the bytes of a file out.

The files are those that the command line writes for the same options, byte for byte.
"""

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unpool.cards import list_pretrained, read_card, weights_digest
from unpool.errors import OptionError, ShapeError, require_choice
from unpool.files import json_line
from unpool.limits import MAX_SERVED_PIXELS, MAX_SERVED_PSF
from unpool.recipes.presets import AUTO, EDECONVNET
from unpool.serve import options
from unpool.serve.engine import Job
from unpool.serve.intake import Upload, require_samples, require_size

if TYPE_CHECKING:
    from unpool.generate import Generator
    from unpool.restore import Restored
    from unpool.segment.pipeline import BaseSegmenter
    from unpool.segment.result import Segmentation
    from unpool.vision.images import Pixels
    from unpool.visualize.fields import Field
    from unpool.visualize.preprocessing import LoadedModel

JSON, PNG, JPEG, TIFF = "application/json", "image/png", "image/jpeg", "image/tiff"

_SUFFIXES = {".png": PNG, ".jpg": JPEG, ".tif": TIFF}


class Answer(NamedTuple):
    """The content of an answer, and what is known about it."""

    content: bytes
    media_type: str
    facts: dict[str, Any]  #: as of `--json`


class Models:
    """The networks of the service, loaded when they are first used, in the thread that computes.

    Args:
        weights: of the network that segments, whose units are projected too.
        generator: weights of the network that generates.
        **loading: `device`, `precision` and `exact` of `unpool.load`.
    """

    def __init__(self, weights: str = "objects", generator: str = "chairs", **loading: Any) -> None:
        self.weights, self.chairs, self.loading = weights, generator, loading
        self.name = Path(weights).name  #: without the path, which answers do not show
        self.chairs_name = Path(generator).name
        self.digest = weights_digest(weights)
        self.fields: dict[str, Field] = {}  #: receptive fields by layer, measured once
        self._segmenters: dict[tuple[str | None, str | None], BaseSegmenter] = {}

    def load(self) -> None:
        """Load what most requests need, and try it once; a CRF is compiled the first time."""
        import numpy as np

        from unpool.ops.meanfield import warm_up

        self.segmenter()(np.zeros((32, 32, 3), np.uint8))
        warm_up(self.segmenter().find_crf(AUTO) or EDECONVNET)

    def segmenter(self, preset: str | None = None, ensemble: str | None = None) -> "BaseSegmenter":
        """The network, or for the preset "edeconvnet" the ensemble with its partner."""
        from unpool.segment.ensemble import load

        preset = preset if preset == EDECONVNET else None
        if preset and not read_card(self.weights).partner:
            raise OptionError(
                f"got preset {preset!r} for {self.name}, whose card names no partner for an "
                "ensemble; leave the preset out"
            )
        if (preset, ensemble) not in self._segmenters:
            found = load(self.weights, preset, ensemble, **self.loading)
            self._segmenters[preset, ensemble] = found
        return self._segmenters[preset, ensemble]

    @property
    def version(self) -> str:
        """The name of the weights and the first digits of their digest."""
        return f"{self.name}-{self.digest[:8]}"

    @cached_property
    def loaded(self) -> "LoadedModel":
        """The network as it was trained, for projections."""
        from unpool.visualize.preprocessing import load_model

        where = {k: v for k, v in self.loading.items() if k == "device"}
        return replace(load_model(self.weights, **where), name=self.name)

    @cached_property
    def generator(self) -> "Generator":
        """The network that generates."""
        from unpool.generate import Generator

        where = {k: v for k, v in self.loading.items() if k == "device"}
        return Generator.from_pretrained(self.chairs, **where)


Application = Callable[[Models, Upload, dict[str, Any], Job], Answer]
"""Computes an answer from what a request brought and its parsed options."""


# ---- segment -------------------------------------------------------------------------------------


def segment_image(
    models: Models, data: bytes, job: Job, **given: Any
) -> tuple["Segmentation", str]:
    """A segmented image, and the description of how."""
    segmenter = models.segmenter(given.get("preset"), given.pop("ensemble", None))
    if given.get("preset") == EDECONVNET and "mode" not in given:
        given["mode"] = "instance"
    image = read(data)
    if given.get("scale", 1) ** 2 * image.shape[0] * image.shape[1] > MAX_SERVED_PIXELS:
        raise OptionError(
            f"got scale {given['scale']:g} for {image.shape[1]} x {image.shape[0]} pixels; wanted "
            f"{MAX_SERVED_PIXELS:,} at most after scaling: choose a smaller scale"
        )
    description = segmenter.describe(**given)
    return segmenter(image, progress=job.progress, **given), description


def read(data: bytes) -> "Pixels":
    """Read an image; see `unpool.vision.images.read_image`."""
    from unpool.vision.images import read_image

    return read_image(data, max_pixels=MAX_SERVED_PIXELS)


def segment(models: Models, upload: Upload, given: dict[str, Any], job: Job) -> Answer:
    """`/v1/segment`: a mask, an overlay, COCO's annotations, or JSON with all about it."""
    from PIL import Image

    from unpool.formats import coco
    from unpool.vision.images import MAX_JPEG_SIDE, encode_image, encode_mask

    kind = given.pop("format", "mask")
    require_choice("format", kind, ("mask", "overlay", "coco", "json"))
    start = time.perf_counter()
    result, description = segment_image(models, upload.data, job, **given)
    facts = {**result.to_dict(), "description": description}
    if kind == "mask":
        return Answer(encode_mask(result.labels, result.palette), PNG, facts)
    if kind == "overlay":
        if max(result.labels.shape) > MAX_JPEG_SIDE:
            raise ShapeError(f"got more than {MAX_JPEG_SIDE} pixels a side; ask for format=mask")
        painted = Image.fromarray(result.overlay())
        return Answer(encode_image(painted, ".jpg"), JPEG, facts)
    if kind == "coco":
        parts = [result.to_coco(Path(upload.name).name or "image")]
        content = "".join(coco.merged(parts, result.classes))
        return Answer(content.encode(), JSON, facts)
    seconds = round(time.perf_counter() - start, 3)
    about = {**mask_facts(models, result), **facts, "seconds": seconds}
    return Answer(json_line(about).encode(), JSON, {})


def mask_facts(models: Models, result: "Segmentation") -> dict[str, Any]:
    """The mask in JSON, with the keys that readers of Roboflow's answers know."""
    from PIL import Image

    from unpool.vision.images import encode_image

    height, width = result.labels.shape
    names = {str(k): name for k, name in enumerate(result.classes) if (result.labels == k).any()}
    mask = encode_image(Image.fromarray(result.labels))
    return {
        "image": {"width": width, "height": height},
        "segmentation_mask": base64.b64encode(mask).decode(),
        "class_map": names,
        "palette": {k: result.palette[int(k)].tolist() for k in names},
        "boxes": result.boxes.tolist(),
        "weights": {"name": models.name, "sha256": models.digest},
    }


# ---- the others ----------------------------------------------------------------------------------


def restore(models: Models, upload: Upload, given: dict[str, Any], job: Job) -> Answer:
    """`/v1/restore`: the restored image, in its type and format, with its tags."""
    kind = given.pop("format", "image")
    require_choice("format", kind, ("image", "json"))
    answer, _ = restore_stack(models, upload.data, job, **given)
    return _image(*answer, kind == "json")


def restore_stack(models: Models, data: bytes, job: Job, **given: Any) -> tuple[Answer, "Restored"]:
    """A restored image or stack, and the result for its first page."""
    from unpool.restore import METHODS, Restored, Restorer
    from unpool.restore.estimate import family_to_estimate
    from unpool.vision.psf import parse_psf
    from unpool.vision.stacks import encode_stack, read_stack

    if not (text := given.pop("psf", "")):
        raise OptionError("got no psf; say what blurred the image, such as psf=motion:13,30")
    psf = text if family_to_estimate(text) else parse_psf(text, MAX_SERVED_PSF)
    where = {k: v for k, v in models.loading.items() if k == "device"}
    restorer = Restorer(**{name: v for name, v in given.items() if v is not False}, **where)
    stack = read_stack(data)
    network = METHODS[restorer.method].weights if restorer.method in METHODS else ""
    if network and network not in list_pretrained():
        raise OptionError(
            f"got method {restorer.method!r}, whose weights are not installed here; choose another"
        )
    first = list[Restored]()
    target = stack.as_float() if restorer.as_float else stack

    def pages() -> Any:
        for result in restorer.pages(stack, psf, job.progress):
            first.append(result) if not first else None
            yield result.image

    content = encode_stack(target, pages())
    facts = {**first[0].to_dict(), "pages": len(stack)}
    return Answer(content, _SUFFIXES[target.suffix], facts), first[0]


def project(models: Models, upload: Upload, given: dict[str, Any], job: Job) -> Answer:
    """`/v1/project`: the projection of a unit, or of the score of a class."""
    from PIL import Image

    from unpool.vision.images import encode_image

    kind = given.pop("format", "png")
    require_choice("format", kind, ("png", "json"))
    _, shown, facts = project_image(models.loaded, models.fields, upload.data, given)
    return _image(encode_image(Image.fromarray(shown)), PNG, facts, kind == "json")


def project_image(
    loaded: "LoadedModel", fields: "dict[str, Field]", data: bytes, given: dict[str, Any]
) -> tuple["Pixels", "Pixels", dict[str, Any]]:
    """The square of an image that a network sees, its projection, and the facts about it."""
    from unpool.visualize.activations import SCORE
    from unpool.visualize.projections import ProjectionWriter, ScoreWriter

    layer, name = given.pop("layer", None), given.pop("class_name", None)
    unit = given.pop("unit", None)
    image = read(data)
    writer: ProjectionWriter | ScoreWriter
    if name is not None:
        if layer not in (None, SCORE) or unit is not None or "place" in given:
            raise OptionError(
                "got class with layer, unit or place; a score is of all places where its class is "
                "predicted: leave them out"
            )
        writer = ScoreWriter(loaded, [loaded.find_class(name)], check=False, **given)
    elif layer is None:
        raise OptionError("got no layer; name one, such as layer=trunk.stages.4, or a class")
    else:
        units = [] if unit is None else [unit]
        writer = ProjectionWriter(loaded, [layer], units, fields=fields, check=False, **given)
    crop, found = writer.project(image)
    (_, shown, facts), *_ = found
    return crop, shown, facts


def generate(models: Models, upload: Upload, given: dict[str, Any], job: Job) -> Answer:
    """`/v1/generate`: one view of a style, or of a mixture of styles."""
    from unpool.generate import parse_style
    from unpool.generate.sequences import encode_changes

    kind = given.pop("format", "png")
    require_choice("format", kind, ("png", "jpg", "json"))
    if not (text := given.pop("style", "")):
        raise OptionError("got no style; name one, such as style=0")
    generator = models.generator
    style = parse_style(text, generator.styles)
    change = encode_changes(given.pop("changes", []))
    look = {"background": given.pop("background", None), "scale": given.pop("scale", 1)}
    view = {"azimuth": 0.0, "elevation": 20.0, **given}
    image = generator.view(style, **view, transformation=change)
    suffix = ".jpg" if kind == "jpg" else ".png"
    facts = {"style": text, **view, "notes": [image.note] if image.note else []}
    return _image(image.encode(suffix, **look), _SUFFIXES[suffix], facts, kind == "json")


def _image(content: bytes, media_type: str, facts: dict[str, Any], as_json: bool) -> Answer:
    """An image, or JSON with it and the facts."""
    if not as_json:
        return Answer(content, media_type, facts)
    image = {"image": base64.b64encode(content).decode(), "media_type": media_type}
    return Answer(json_line({**facts, **image}).encode(), JSON, {})


class Endpoint(NamedTuple):
    """An application as clients see it."""

    application: Application
    options: tuple[options.Option, ...]
    check: Callable[[bytes], None] | None  #: refuses images by their header; None: takes none
    accepted: Mapping[str, str] = {}  #: the format for a media type in the header Accept


ENDPOINTS = {
    "/v1/segment": Endpoint(
        segment, options.SEGMENT, require_size, {JSON: "json", JPEG: "overlay"}
    ),
    "/v1/restore": Endpoint(restore, options.RESTORE, require_samples, {JSON: "json"}),
    "/v1/project": Endpoint(project, options.PROJECT, require_size, {JSON: "json"}),
    "/v1/generate": Endpoint(generate, options.GENERATE, None, {JSON: "json", JPEG: "jpg"}),
}
"""By route."""
