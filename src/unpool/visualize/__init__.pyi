from .activations import ActivationRecorder, Layer, list_layers
from .class_scores import project_scores
from .correspondence import correspond
from .decoding import decode
from .evolution import evolve
from .explicit import attach_deconvnet
from .fields import CHAINS, Field, chain_fields, measure_field
from .filters import inspect_filters
from .gallery import make_gallery
from .invariance import measure_invariance
from .occlusion.occlude import occlude
from .occlusion.segmentation import occlude_region
from .preprocessing import LoadedModel, Preprocessing, load_model
from .projection import mosaic, patch, project, to_images
from .rules import OVERLAPS, RULES, Interception, Rule, find_rule
from .top import top_activations

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
