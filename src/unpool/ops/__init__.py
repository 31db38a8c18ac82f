"""The core: pooling with switches, unpooling, deconvolution. Functions on tensors; only torch."""

from unpool.ops.deconv import as_convolution, bilinear_kernel, deconv
from unpool.ops.switches import Switches, fixed_unpool, pool, unpool

__all__ = [
    "Switches",
    "as_convolution",
    "bilinear_kernel",
    "deconv",
    "fixed_unpool",
    "pool",
    "unpool",
]
