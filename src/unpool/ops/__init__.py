"""The operators: pooling with switches, unpooling, deconvolution and dense CRFs.

They are functions of tensors and need only torch; with numba, mean field runs as machine code.
"""

from unpool.ops.crf import crf_filter, kernel_filter
from unpool.ops.deconv import as_convolution, bilinear_kernel, deconv, uconv
from unpool.ops.lattice import Filters, Lattice
from unpool.ops.meanfield import mean_field, messages, unary_from_probabilities
from unpool.ops.switches import Switches, fixed_unpool, pool, unpool
from unpool.recipes.presets import CRF_PRESETS, DenseCRF, Kernel

__all__ = [
    "CRF_PRESETS",
    "DenseCRF",
    "Filters",
    "Kernel",
    "Lattice",
    "Switches",
    "as_convolution",
    "bilinear_kernel",
    "crf_filter",
    "deconv",
    "fixed_unpool",
    "kernel_filter",
    "mean_field",
    "messages",
    "pool",
    "uconv",
    "unary_from_probabilities",
    "unpool",
]
