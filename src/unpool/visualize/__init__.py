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

No model is changed. From images to a figure:

    found = project(model, images, "features.conv5", unit=7)
    field = measure_field(model, images, "features.conv5")
    boxes = [field.box(row, column) for row, column in found.places.tolist()]
    shown = mosaic([patch(p, box) for p, box in zip(found.images(), boxes)], columns=3)
"""

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
