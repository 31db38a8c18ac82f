"""DecoupledNet: classification says which classes, segmentation says where (Hong, Noh, Han 2015).

Two networks share a trunk. The first one classifies an image, and learns from weak labels, the
names of classes. The second one segments a single class; all classes share its weights, so that a
few masks are enough. The bridge connects them: it turns the score of a class into maps that show
where in the image the score comes from.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, require_choice, require_int
from unpool.models.deconvnet import mirror
from unpool.models.vgg import (
    MEAN_BGR,
    Table,
    Trunk,
    block,
    chain,
    decode,
    initialize,
    trunk_argument,
)

if TYPE_CHECKING:
    from unpool.ops.switches import Switches

POOLINGS = ("average", "maximum")
"""Reductions of the score map of a class to one score."""

_NEVER = 1e-6  #: probability of classes that the image does not show


class Classification(NamedTuple):
    """The classifier's activations and scores, for the bridge; K does not count the background."""

    fc6: Tensor  #: (N, C, h, w), after ReLU
    fc7: Tensor  #: (N, C, h, w), after ReLU
    scores: Tensor  #: (N, K, h, w) before the sigmoid

    def pooled(self, pooling: str) -> Tensor:
        """A score for each class, (N, K): the average or maximum of its score map."""
        flat = self.scores.flatten(2)
        return flat.mean(2) if pooling == "average" else flat.amax(2)

    def probabilities(self, pooling: str = "average") -> Tensor:
        """The probability that an image shows a class, (N, K); several can be close to 1."""
        return self.pooled(pooling).sigmoid()


class DecoupledNet(nn.Module):
    """The decoupled network for semi-supervised segmentation; the defaults are the published one.

    134,342,484 parameters for classification and 173,107,906 for segmentation. The bridge has none
    of its own: it is the classifier, backwards. (With its copies in the released file, there are
    427,078,678.) Layers carry the authors' names: the state dict's keys end in `conv1_1.weight`,
    `fc6.weight`, `cls-score-voc.weight`, `pool5-bn.weight`, `fc6-seg.weight`, `bnfc6-seg.weight`,
    `fc6-deconv.weight`, `deconv5_1.weight`, `debn5_1.weight`, `seg-score-voc.weight` ...

    Images of any size are padded to a square and resized to the design size; the result is resized
    and cropped to the image.

    Args:
        classes: number of score maps of the result, background included.
        trunk: a VGG name ("vgg11" to "vgg19") or a table of (layers, channels) rows.
        code: width of the classifier's fc6 and fc7.
        seg_code: width of the segmentation network's fc6-seg and fc7-seg.
        size: design size in pixels, to which images are resized.
        window: side of the kernels of fc6, fc6-seg and fc6-deconv; at the design size, the last
            pooled map must be at least as large.
        stages: number of decoder stages, from the coarsest, by default as many as the trunk has.
            With fewer, the scores are upsampled bilinearly.
        bridge: the pooling whose probability enters the bridge when images are segmented,
            "average", as in the released script, or "maximum", as in training. Which classes an
            image shows is always decided by the average.
        eps: of batch norm, 1e-9 as in the authors' Caffe; None omits batch norm, except for the two
            layers at the input of the segmentation network.

    Hong, Noh, Han 2015 (arXiv 1506.04924); layers from the released prototxts.

    >>> net = DecoupledNet(3, ((1, 4), (1, 8)), code=8, seg_code=8, size=32, window=3).eval()
    >>> net(torch.zeros(2, 3, 30, 45)).exp().sum(1).shape
    torch.Size([2, 30, 45])
    """

    size: int | None = None
    """There are no square crops; the network takes whole images of any size."""

    def __init__(
        self,
        classes: int = 21,
        trunk: str | Table = "vgg16",
        code: int = 4096,
        seg_code: int = 2048,
        size: int = 320,
        window: int = 7,
        stages: int | None = None,
        bridge: str = "average",
        eps: float | None = 1e-9,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(trunk, None)
        table = self.trunk.table
        stages = len(table) if stages is None else stages
        self.classes, self.code_width, self.seg_code = classes, code, seg_code
        self.input_size, self.window, self.stages = size, window, stages
        self.bridge_pooling, self.eps = bridge, eps
        self._require_arguments()
        width = table[-1][1]
        # no `nn.Sequential`, which the fast form fuses: the bridge needs the layers and their maps
        self.classifier = nn.ModuleDict(
            {
                "fc6": nn.Conv2d(width, code, window),
                "fc7": nn.Conv2d(code, code, 1),
                "cls-score-voc": nn.Conv2d(code, classes - 1, 1),
            }
        )
        own = 1e-9 if eps is None else eps  # folding these into fc6-seg would change its filters
        names = "pool5-bn", "pool5-bp-bn"
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(width, eps=own) for name in names})
        self.fc = _code(width, seg_code, window, eps)
        self.decoder = mirror(table, eps)[:stages]
        last = table[max(len(table) - stages - 1, 0)][1]
        self.add_module("seg-score-voc", nn.Conv2d(last, 2, 1))
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, classes, H, W) for images (N, 3, H, W) made by `prepare`.

        The image is segmented once with all the classes that it shows, which gives the background,
        and once for each of these classes. Everything up to the bridge is computed once. Other
        classes have a probability of 1e-6.

        Hong, Noh, Han 2015; the released `DecoupledNet_inference.m`.
        """
        height, width = x.shape[-2:]
        self.trunk.require_size(x)
        maps, switches = self.trunk(self._square(x))  # (N, 512, 10, 10) as published
        found = self.classify(maps)
        shown = found.probabilities() > 0.5  # (N, K)
        strength = found.probabilities(self.bridge_pooling) * shown
        images, values = _passes(shown, strength)
        parts = Classification(*(tensor[images] for tensor in found))
        of_passes = [s._replace(index=s.index[images]) for s in switches[-self.stages :]]
        scores = self.segment(maps[images], of_passes, self.bridge(parts, values))
        scores = scores.to(_exact(scores.dtype))
        if self.stages < len(self.trunk.table):
            scores = F.interpolate(scores, size=[self.input_size] * 2, mode="bilinear")
        p = _merge(scores.log_softmax(1), shown)  # (N, classes, 320, 320) as published
        side = max(height, width)
        if side != self.input_size:  # like MATLAB's imresize, which can overshoot
            p = F.interpolate(p, size=[side, side], mode="bicubic", antialias=True)
        p = p[..., :height, :width].clamp_min(_NEVER)
        return (p / p.sum(1, keepdim=True)).log()

    def shows(self, x: Tensor) -> Tensor:
        """Which classes images (N, 3, H, W) show, without the background, (N, K) bool."""
        self.trunk.require_size(x)
        return self.classify(self.trunk.pooled(self._square(x))[-1]).probabilities() > 0.5

    def classify(self, maps: Tensor) -> Classification:
        """Score all classes except the background.

        Args:
            maps: the trunk's last pooled maps, (N, C, h, w).
        """
        fc6 = self.classifier["fc6"](maps).relu()
        fc7 = self.classifier["fc7"](fc6).relu()
        return Classification(fc6, fc7, self.classifier["cls-score-voc"](fc7))

    def bridge(self, found: Classification, values: Tensor) -> Tensor:
        """Locate, on the trunk's last maps, where the scores of classes come from.

        Each value enters at the maximum of its class' score map, and is propagated back through the
        transposed filters of the classifier, and through ReLUs where they were active. This is the
        gradient, with respect to the maps, of the maxima weighted with the values. The explicit
        form needs no autograd, so it can be exported.

        Args:
            found: the result of `classify`.
            values: a value for each class, (N, K): its probability, or 0 to exclude it.

        Returns:
            Maps of the same shape as the trunk's, (N, C, h, w).

        Hong, Noh, Han 2015 ("bridging layers"); Simonyan, Vedaldi, Zisserman 2014.
        """
        flat = found.scores.flatten(2)  # (N, K, h * w)
        here = torch.arange(flat.shape[2], device=flat.device) == flat.argmax(2, keepdim=True)
        y = (values[:, :, None].to(flat.dtype) * here).view(found.scores.shape)
        fc6, fc7, score = (layer.get_parameter("weight") for layer in self.classifier.values())
        # a 1 x 1 deconvolution is a convolution; OpenVINO computes square ones wrongly
        y = F.conv2d(y, score.transpose(0, 1)) * (found.fc7 > 0)
        y = F.conv2d(y, fc7.transpose(0, 1)) * (found.fc6 > 0)
        return F.conv_transpose2d(y, fc6)

    def bridge_by_autograd(self, maps: Tensor, values: Tensor) -> Tensor:
        """Compute `bridge` by its definition, as a gradient.

        Does not work in `torch.inference_mode`.

        Args:
            maps: the trunk's last pooled maps, (N, C, h, w).
            values: a value for each class, (N, K).
        """
        with torch.enable_grad():
            maps = maps.detach().requires_grad_()
            pooled = self.classify(maps).scores.flatten(2).max(2).values
            (gradient,) = torch.autograd.grad(pooled, maps, values.detach().to(pooled.dtype))
        return gradient

    def segment(self, maps: Tensor, switches: list["Switches"], bridged: Tensor) -> Tensor:
        """Scores (N, 2, H, W): background, and foreground, the classes that entered the bridge.

        Args:
            maps: the trunk's last pooled maps, (N, C, h, w).
            switches: the trunk's switches; a decoder with fewer `stages` uses only the last ones.
            bridged: the result of `bridge`, (N, C, h, w).
        """
        parts = self.norms["pool5-bn"](maps), self.norms["pool5-bp-bn"](bridged)
        y = self.fc(torch.cat(parts, 1))  # again (N, C, h, w)
        y = decode(self.decoder, y, switches[-self.stages :], self.trunk.recomputes)[-1]
        return self.score(y.to(self.score.weight.dtype))  # may stay float32

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values, to rebuild this network."""
        trunk = {"trunk": trunk_argument(self.trunk.table), "code": self.code_width}
        sizes = {"seg_code": self.seg_code, "size": self.input_size, "window": self.window}
        more = {"stages": self.stages, "bridge": self.bridge_pooling, "eps": self.eps}
        return {"classes": self.classes, **trunk, **sizes, **more}

    @property
    def score(self) -> nn.Conv2d:
        """The last layer, `seg-score-voc`: a 1 x 1 convolution."""
        layer = self.get_submodule("seg-score-voc")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def _square(self, x: Tensor) -> Tensor:
        """Pad with black at the right and at the bottom, and resize to the design size."""
        height, width = x.shape[-2:]
        side = max(height, width)
        pad = 0, side - width, 0, side - height
        planes = (F.pad(x[:, i : i + 1], pad, value=-mean) for i, mean in enumerate(MEAN_BGR))
        x = torch.cat([*planes], 1)
        if side == self.input_size:
            return x
        size = [self.input_size] * 2
        exact = x.to(_exact(x.dtype))
        return F.interpolate(exact, size=size, mode="bilinear", antialias=True).to(x.dtype)

    def _require_arguments(self) -> None:
        require_int("classes", self.classes, 2)
        require_int("code", self.code_width)
        require_int("seg_code", self.seg_code)
        require_int("window", self.window)
        depth = len(self.trunk.table)
        require_int("size", self.input_size, 2**depth)
        require_int("stages", self.stages)
        require_choice("bridge", self.bridge_pooling, POOLINGS)
        side = -(-self.input_size // 2**depth)
        if self.window > side or self.stages > depth:
            raise OptionError(
                f"got window={self.window} and stages={self.stages}; the last map of this trunk is "
                f"{side} x {side} at size={self.input_size}, after {depth} stages: choose a window "
                f"up to {side} and stages up to {depth}, or enlarge size"
            )
        if self.eps is not None and not (isinstance(self.eps, int | float) and 0 <= self.eps <= 1):
            raise OptionError(f"got eps={self.eps!r}; wanted a number from 0 to 1, or None")

    def _initialize(self) -> None:
        """Initialize as the authors do: new layers Gaussian 0.01, batch norm scale 1 and shift
        0.001; trunk and classifier by He, to be replaced by VGG weights (`load_vgg`)."""
        initialize(self, lambda w: nn.init.normal_(w, std=0.01))
        initialize(self.trunk)
        for name in ("fc6", "fc7"):
            initialize(self.classifier[name])
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.bias, 0.001)


def _code(channels: int, width: int, window: int, eps: float | None) -> nn.Sequential:
    """fc6-seg, fc7-seg and fc6-deconv, from the maps of trunk and bridge to the decoder."""
    fc6, fc7 = nn.Conv2d(2 * channels, width, window), nn.Conv2d(width, width, 1)
    back = nn.ConvTranspose2d(width, channels, window)
    blocks = [
        block(fc6, "fc6-seg", "bnfc6-seg", width, eps),
        block(fc7, "fc7-seg", "bnfc7-seg", width, eps),
        block(back, "fc6-deconv", "fc6-deconv-bn", channels, eps),
    ]
    return chain(blocks)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The dtype, or float32 if that is more precise; for probabilities and resizing."""
    return torch.promote_types(dtype, torch.float32)


def _passes(shown: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """The image index (P,) and the bridge values (P, K) of each pass of the segmentation network.

    Each image has a pass with all the classes that it shows; then follows one for each class.
    """
    count, classes = shown.shape
    every = torch.arange(count, device=shown.device)
    if _all_classes(shown):
        images = every[:, None].expand(count, classes).flatten()
        single = torch.diag_embed(strength).flatten(0, 1)
    else:
        images, labels = shown.nonzero(as_tuple=True)
        single = F.one_hot(labels, classes) * strength[images]
    return torch.cat([every, images]), torch.cat([strength, single.to(strength.dtype)])


def _merge(log_p: Tensor, shown: Tensor) -> Tensor:
    """Merge the log-probabilities of all passes (P, 2, h, w) into probabilities (N, classes, h, w).

    They are normalized as logarithms: where one pass is certain of an object, and no other one of
    its class, all probabilities can be 0 in float32.
    """
    count, classes = shown.shape
    ground, objects = log_p[:count, :1], log_p[count:, 1]
    if _all_classes(shown):
        every = objects.view(count, classes, *log_p.shape[2:])
        single = every.masked_fill(~shown[:, :, None, None], -math.inf)
    else:
        single = log_p.new_full((count, classes, *log_p.shape[2:]), -math.inf)
        single = single.index_put(shown.nonzero(as_tuple=True), objects)
    return torch.cat([ground, single], 1).softmax(1)


def _all_classes(shown: Tensor) -> bool:
    """Whether to run a pass for every class of every image: the size of a traced graph must not
    depend on the content of images."""
    return torch.compiler.is_compiling() or shown.is_meta
