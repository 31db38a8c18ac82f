"""Look into any network: what its units have learned, and what in an image they respond to.

- `load_model` loads a model with its preprocessing; `list_layers` names its layers, and an
  `ActivationRecorder` records their outputs.
- `project` sends the activation of a unit down to pixels by one of `RULES`, `project_scores` the
  score of a class; `attach_deconvnet` builds the explicit deconvnet of a chain of layers.
- `measure_field` and `chain_fields` give receptive fields.
- `top_activations` finds the images that excite each unit most; `make_gallery` shows them.
- `occlude`, `occlude_region`, `decode`, `evolve`, `measure_invariance`, `correspond` and
  `inspect_filters` are the further analyses.
- `to_images`, `patch` and `mosaic` make figures of the results.

No model is changed; copies that share its weights run in evaluation mode. Names are loaded when
they are first used. From images to a figure:

    found = project(model, images, "features.conv5", unit=7)
    field = measure_field(model, images, "features.conv5")
    boxes = [field.box(row, column) for row, column in found.places.tolist()]
    shown = mosaic([patch(p, box) for p, box in zip(found.images(), boxes)], columns=3)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unpool.vision.drawing import to_images
    from unpool.vision.figures import mosaic, patch
    from unpool.visualize.activations import ActivationRecorder, Layer, list_layers
    from unpool.visualize.class_scores import project_scores
    from unpool.visualize.correspondence import correspond
    from unpool.visualize.decoding import decode
    from unpool.visualize.evolution import evolve
    from unpool.visualize.explicit import attach_deconvnet
    from unpool.visualize.fields import CHAINS, Field, chain_fields, measure_field
    from unpool.visualize.filters import inspect_filters
    from unpool.visualize.gallery import make_gallery
    from unpool.visualize.invariance import measure_invariance
    from unpool.visualize.occlusion.occlude import occlude
    from unpool.visualize.occlusion.segmentation import occlude_region
    from unpool.visualize.preprocessing import LoadedModel, Preprocessing, load_model
    from unpool.visualize.projection import project
    from unpool.visualize.rules import OVERLAPS, RULES, Interception, Rule, find_rule
    from unpool.visualize.top import top_activations

_NAMES = {
    "vision.drawing": "to_images",
    "vision.figures": "mosaic patch",
    "visualize.activations": "ActivationRecorder Layer list_layers",
    "visualize.class_scores": "project_scores",
    "visualize.correspondence": "correspond",
    "visualize.decoding": "decode",
    "visualize.evolution": "evolve",
    "visualize.explicit": "attach_deconvnet",
    "visualize.fields": "CHAINS Field chain_fields measure_field",
    "visualize.filters": "inspect_filters",
    "visualize.gallery": "make_gallery",
    "visualize.invariance": "measure_invariance",
    "visualize.occlusion.occlude": "occlude",
    "visualize.occlusion.segmentation": "occlude_region",
    "visualize.preprocessing": "LoadedModel Preprocessing load_model",
    "visualize.projection": "project",
    "visualize.rules": "OVERLAPS RULES Interception Rule find_rule",
    "visualize.top": "top_activations",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "CHAINS",
    "OVERLAPS",
    "RULES",
    "ActivationRecorder",
    "Field",
    "Interception",
    "Layer",
    "LoadedModel",
    "Preprocessing",
    "Rule",
    "attach_deconvnet",
    "chain_fields",
    "correspond",
    "decode",
    "evolve",
    "find_rule",
    "inspect_filters",
    "list_layers",
    "load_model",
    "make_gallery",
    "measure_field",
    "measure_invariance",
    "mosaic",
    "occlude",
    "occlude_region",
    "patch",
    "project",
    "project_scores",
    "to_images",
    "top_activations",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"unpool.{_HOME[name]}"), name)
    raise AttributeError(f"module 'unpool.visualize' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
