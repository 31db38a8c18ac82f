"""Published settings by name: dense CRFs, crops of object proposals, ensembles.

Nothing here needs torch, so that the command line can list the names without loading it.
"""

from typing import Literal, NamedTuple, TypeAlias, get_args

PRECISIONS = ("auto", "bf16", "fp32", "int8")
"""The arithmetic of a network; see `unpool.devices.find_dtype`."""

LOADING = ("ensemble", "device", "precision", "exact")
"""Options of loading a segmenter that its calls do not have."""

INSTANCES = ("preset", "method", "proposals", "aggregate", "batch")
"""Options of instance-wise segmentation; see `unpool.segment.segmenter.Segmenter.predict`."""

TILES = ("tile", "overlap", "scale")
"""Options of segmentation by tiles; see `unpool.segment.tiles.plan_tiles`."""

RESULTS = ("mask", "coco", "labelme", "yolo", "geojson", "labelstudio")
"""What results of segmentation are written as; see `unpool.formats.write`."""

METHODS = ("edgeboxes", "grid")
"""Where object proposals come from; see `unpool.vision.proposals.propose`."""

RESTORATIONS = ("auto", "wiener", "tikhonov", "tv", "rl", "rl-fast", "given", "blind")
"""How blurred images are restored; see `unpool.restore.methods`."""

Edges: TypeAlias = Literal["ramp", "reflect", "zero", "none"]
EDGES = get_args(Edges)
"""How images are extended at their borders; see `unpool.ops.inversion`."""

ENSEMBLES = ("mean", "product")
"""How DeconvNet and FCN are combined; see `unpool.segment.ensemble.combine`."""

EDECONVNET = "edeconvnet"
"""The preset of the ensemble; its proposals are those of the preset "paper"."""

Normalization = Literal["none", "before", "after", "symmetric"]

NORMALIZATIONS = get_args(Normalization)


class Kernel(NamedTuple):
    """A Gaussian of the distance between two pixels, and between their colors if `rgb` is set."""

    xy: float  #: standard deviation of positions, in pixels
    weight: float  #: weight of the penalty for different labels
    rgb: float | None = None  #: standard deviation of colors, 0 to 255; None: positions only


class DenseCRF(NamedTuple):
    """The kernels and options of a dense CRF.

    With n = K 1, the sum of the weights that a pixel receives from all others, the normalized
    filter is K q ("none"), K (q / n) ("before"), (K q) / n ("after"), or
    K (q / sqrt n) / sqrt n ("symmetric").
    """

    kernels: tuple[Kernel, ...]
    iterations: int = 10
    normalization: Normalization = "symmetric"
    prune: float = 1e-3  #: largest initial probability of all dropped labels; 0 keeps all
    clip: float | None = 1e-5
    """Smallest probability of a label at a pixel, which bounds its unary energy, minus its log;
    None: the energy is minus the network's score, without a bound."""

    def __str__(self) -> str:
        kernels = (f"{k.xy:g}" + (f"/{k.rgb:g}" if k.rgb else "") for k in self.kernels)
        parts = (f"{k.weight:g} x {text}" for k, text in zip(self.kernels, kernels, strict=True))
        return f"{' + '.join(parts)}, {self.iterations} iterations, {self.normalization}"


CRF_PRESETS = {
    "edeconvnet": DenseCRF((Kernel(3, 3), Kernel(20, 5, 3)), 10, "none"),
    "deeplab": DenseCRF((Kernel(3, 3), Kernel(49, 4, 5)), 10, "after"),
    "crfrnn": DenseCRF((Kernel(3, 3), Kernel(160, 5, 3)), 10, "after"),
    "densecrf": DenseCRF((Kernel(3, 3), Kernel(80, 10, 13)), 5, "symmetric"),
    "deeplab1": DenseCRF((Kernel(3, 3), Kernel(50, 5, 3)), 10, "after", clip=None),
}


AUTO = "auto"
"""The dense CRF that was chosen for the weights, on their card."""


class Preset(NamedTuple):
    """How proposals become crops.

    The shift of the score map by one pixel in the released script is an error and is left out.
    """

    enlarge: float = 1.2  #: factor of the square around a proposal
    least_side: int = 1  #: smaller squares are skipped, before the proposals are counted
    candidates: int = 2000  #: number of proposals asked for
    aggregate: str | None = None  #: "max" or "mean"; None: the default of the weights


PRESETS = {"paper": Preset(), "reference": Preset(least_side=112, aggregate="max")}
