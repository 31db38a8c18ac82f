from .crf import CRF_PRESETS, DenseCRF, Kernel, crf_filter, kernel_filter
from .deconv import as_convolution, bilinear_kernel, deconv, uconv
from .lattice import Filters, Lattice
from .meanfield import mean_field, messages, unary_from_probabilities
from .switches import Switches, fixed_unpool, pool, unpool

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
