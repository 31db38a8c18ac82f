"""Look into a network: what its units have learned, and what in a picture they respond to.

- `list_layers` names the layers of a model, and a `Probe` records what they give.
- `project` sends the activation of a unit back down to pixels, by one of `RULES`; `deconvnet_of`
  spells the same out for a chain of layers.
- A `Field` tells which pixels a unit sees: `chain_fields` from a table of layers,
  `measured_field` for any model.
- `mine` finds the pictures that excite each unit most; `make_gallery` shows them as in the paper.
- `load_subject` takes a model, ours or any other, with how pictures are prepared for it.
- `draw`, `patch` and `mosaic` make pictures of it all.

No model is changed by any of them. From a picture to a figure:

    found = project(model, images, "features.conv5", unit=7)
    field = measured_field(model, images, "features.conv5")
    boxes = [field.box(row, column) for row, column in found.places.tolist()]
    shown = mosaic([patch(p, box) for p, box in zip(draw(found.signal), boxes)], columns=3)
"""

from unpool.visualize.explicit import AttachedDeconvnet, deconvnet_of
from unpool.visualize.fields import CHAINS, Field, chain_fields, measured_field
from unpool.visualize.gallery import make_gallery
from unpool.visualize.pictures import draw, mosaic, patch
from unpool.visualize.probes import Layer, Probe, list_layers
from unpool.visualize.project import Projection, project
from unpool.visualize.rules import OVERLAPS, RULES, Interception, Rule, find_rule
from unpool.visualize.subjects import Inputs, Subject, load_subject
from unpool.visualize.top import Top, mine

__all__ = [
    "CHAINS",
    "OVERLAPS",
    "RULES",
    "AttachedDeconvnet",
    "Field",
    "Inputs",
    "Interception",
    "Layer",
    "Probe",
    "Projection",
    "Rule",
    "Subject",
    "Top",
    "chain_fields",
    "deconvnet_of",
    "draw",
    "find_rule",
    "list_layers",
    "load_subject",
    "make_gallery",
    "measured_field",
    "mine",
    "mosaic",
    "patch",
    "project",
]
