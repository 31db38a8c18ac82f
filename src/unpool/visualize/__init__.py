"""Look into a network: what its units have learned, and what in an image they respond to.

- `list_layers` names the layers of a model, and an `ActivationRecorder` records what they give.
- `project` sends the activation of a unit back down to pixels by one of `RULES`;
  `attach_deconvnet` spells the same out for a chain of layers.
- `project_scores` does so with the score of a class where it is predicted, and `decode` follows
  one through the decoder of a network that segments.
- A `Field` gives the pixels that a unit sees: `chain_fields` from a table of layers,
  `measure_field` for any model.
- `top_activations` finds the images that excite each unit most; `make_gallery` shows them.
- `occlude` slides a gray square over an image and maps what a classifier makes of it;
  `occlude_region` does so for a network that segments.
- `evolve` follows units through the checkpoints of a training run; `measure_invariance` transforms
  images; `correspond` hides the same part in several; `inspect_filters` looks at the filters.
- `load_model` takes a model, ours or any other, with how images are prepared for it.
- `draw`, `patch` and `mosaic` make images of it all.

What they return is described in the modules of these names.

No model is changed by any of them. From an image to a figure:

    found = project(model, images, "features.conv5", unit=7)
    field = measure_field(model, images, "features.conv5")
    boxes = [field.box(row, column) for row, column in found.places.tolist()]
    shown = mosaic([patch(p, box) for p, box in zip(to_images(found.signal), boxes)], columns=3)
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
from unpool.visualize.preprocessing import (
    LoadedModel,
    Preprocessing,
    load_model,
)
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
