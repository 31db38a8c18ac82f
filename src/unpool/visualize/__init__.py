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

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
