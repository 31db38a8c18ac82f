"""CRF-RNN: an FCN-8s with mean-field inference as its last layer (Zheng et al. 2015).

Mean-field iterations in a dense CRF form a recurrent layer, so that the network, the weights of the
CRF's kernels and the compatibility of its labels are trained together. The filters run on the
permutohedral lattice; their gradient is the transposed filter.

Letters: N images, L labels, H and W the image size, P = H * W pixels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.errors import OptionError, require_int, require_type
from unpool.limits import MAX_SIDE
from unpool.models.fcn import FCN, Interpolation
from unpool.ops.crf import Kernel, kernel_filter
from unpool.ops.meanfield import messages

if TYPE_CHECKING:
    from unpool.models.vgg import Table, Trunk


class CRFRNN(nn.Module):
    """CRF-RNN; the defaults are the published network.

    134,491,082 parameters with 21 classes: those of an FCN-8s, and 3 * 21² of the CRF. The released
    file has 134,491,103, because its score2 has a bias, which is redundant: its output is added to
    a score that has one. The FCN is `net`, the CRF is `crf`.

    The CRF sees the colors of the network's input, in BGR order and minus the mean, as in the
    authors' programs: the lattice is an approximation that depends on the origin and the order of
    the features. It is computed in float32 or float64, also under autocast.

    Args:
        classes: number of score maps, background included.
        trunk, code, stride, pad, window, dropout, at_once: see `FCN`.
        learned: train the upsampling filters of the FCN, too, except the last.
        iterations: number of mean-field iterations, in training and in evaluation.
        theta: standard deviations of the CRF's kernels: position in pixels and color (0 to 255) of
            the bilateral kernel; position of the spatial kernel.
        pad_to: pad images with zeros, the mean color, at the right and the bottom to this side, as
            the authors' programs do; the CRF sees the padding. Larger sides are not changed.

    Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr 2015 (arXiv 1502.03240), sections
    4 to 6; layers from the released prototxts.

    >>> net = CRFRNN(3, ((1, 4), (1, 8), (1, 8)), code=16, stride=4, pad=1, window=3).eval()
    >>> net(torch.zeros(2, 3, 40, 50)).shape
    torch.Size([2, 3, 40, 50])
    """

    size: int | None = None
    """There is no design size; the network takes images of any size."""

    def __init__(
        self,
        classes: int = 21,
        trunk: "str | Table" = "vgg16",
        code: int | None = 4096,
        stride: int = 8,
        pad: int = 100,
        window: int = 7,
        dropout: float = 0.5,
        at_once: bool = False,
        learned: bool = True,
        iterations: Sequence[int] = (5, 10),
        theta: Sequence[float] = (160.0, 3.0, 3.0),
        pad_to: int | None = None,
    ) -> None:
        super().__init__()
        _require(iterations, theta, pad_to)
        self.net = FCN(classes, trunk, code, stride, pad, window, dropout, at_once, learned)
        last = [layer for layer in self.net.score.values() if isinstance(layer, Interpolation)][-1]
        last.requires_grad_(False)
        self.crf = MeanField(classes, theta)
        self.iterations, self.pad_to = tuple(iterations), pad_to

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) for images (N, 3, H, W) made by `prepare`.

        Raises a `ShapeError` for images that are too small.
        """
        height, width = x.shape[-2:]
        if self.pad_to is not None:
            x = F.pad(x, (0, max(self.pad_to - width, 0), 0, max(self.pad_to - height, 0)))
        weight = next(self.trunk.parameters())  # may be bfloat16, while the colors are not
        y = self.crf(self.net(x.to(weight.dtype)), x, self.iterations[0 if self.training else 1])
        return y[..., :height, :width]

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values, to rebuild this network."""
        own = {"iterations": list(self.iterations), "theta": list(self.crf.theta)}
        return {**self.net.arguments, **own, "pad_to": self.pad_to}

    @property
    def classes(self) -> int:
        """The number of score maps."""
        return self.net.classes

    @property
    def trunk(self) -> "Trunk":
        """The trunk of the FCN."""
        return self.net.trunk

    @property
    def fc(self) -> nn.Sequential | None:
        """The code layers of the FCN; None in a network without them."""
        return self.net.fc


class MeanField(nn.Module):
    """Mean-field inference in a dense CRF with learned weights, as a layer.

    Starting from scores U' = U, (P, L), each iteration computes Q = softmax(U'), filters Q with the
    two normalized kernels, which gives S and B, and sets U' = U + (S Wsᵀ + B Wbᵀ) Cᵀ. The result is
    U', without softmax.

    Args:
        labels: number L of labels, the classes of the FCN.
        theta: standard deviations of the kernels, see `CRFRNN`.

    Attributes:
        spatial, bilateral: Ws and Wb, (L, L), initially 3 and 5 times the identity.
        compatibility: C, (L, L), how much a label (row) gains from another one (column) nearby;
            initially the identity. The authors' Caffe stores a penalty, -C.

    Zheng et al. 2015, sections 4.1 and 4.2; the initial values are those of the released files
    `spatial.par` and `bilateral.par`.

    >>> scores, image = torch.rand(1, 2, 6, 8), torch.zeros(1, 3, 6, 8)
    >>> torch.equal(MeanField(2)(scores, image, 0), scores)
    True
    """

    def __init__(self, labels: int, theta: Sequence[float] = (160.0, 3.0, 3.0)) -> None:
        super().__init__()
        self.theta = tuple(float(value) for value in theta)
        # the authors' first weights of both kernels
        self.spatial = nn.Parameter(3 * torch.eye(labels))
        self.bilateral = nn.Parameter(5 * torch.eye(labels))
        self.compatibility = nn.Parameter(torch.eye(labels))

    def forward(self, scores: Tensor, image: Tensor, iterations: int) -> Tensor:
        """Logits (N, L, H, W), float32 or float64, for scores (N, L, H, W) of images (N, 3, H, W).

        Gradients flow to the scores and the three matrices, not to the image.
        """
        # filtered by tables in float32; in bf16 marginals near 1 could not change
        with torch.autocast(scores.device.type, enabled=False):
            scores = scores.to(torch.promote_types(scores.dtype, self.spatial.dtype))
            if not scores.numel():
                return scores
            pairs = zip(scores, image.detach(), strict=True)
            return torch.stack([self._infer(*pair, iterations) for pair in pairs])

    def _infer(self, scores: Tensor, image: Tensor, iterations: int) -> Tensor:
        """The result for one image."""
        size = scores.shape[1], scores.shape[2]
        unary = scores.flatten(1).t().contiguous()  # (P, L)
        alpha, beta, gamma = self.theta
        filters = [
            kernel_filter(kernel, size, image.movedim(0, -1), "after", unary.detach())
            for kernel in (Kernel(gamma, 1), Kernel(alpha, 1, beta))
        ]
        weights, current = (self.spatial, self.bilateral), unary
        for _ in range(iterations):
            q = current.softmax(1)
            current = unary + messages(q, filters, weights, self.compatibility)
        return current.t().reshape(scores.shape)


_MOST_ITERATIONS = 100


def _require(iterations: Sequence[int], theta: Sequence[float], pad_to: int | None) -> None:
    require_type("iterations", iterations, list | tuple, "a pair, for training and evaluation")
    require_type("theta", theta, list | tuple, "three standard deviations")
    for count in iterations:
        require_int("iterations", count, 0)
    if len(iterations) != 2 or max(iterations) > _MOST_ITERATIONS:
        raise OptionError(
            f"got iterations={iterations!r}; wanted two numbers up to {_MOST_ITERATIONS}, of "
            "iterations in training and in evaluation"
        )
    if len(theta) != 3 or not all(0 < value < torch.inf for value in theta):
        raise OptionError(
            f"got theta={theta!r}; wanted three standard deviations above 0: 160, 3, 3 as published"
        )
    if pad_to is not None:
        require_int("pad_to", pad_to)
        if pad_to > MAX_SIDE:
            raise OptionError(f"got pad_to={pad_to}; wanted at most {MAX_SIDE}, 500 as published")
