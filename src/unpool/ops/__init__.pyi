from .coding import fista, ista, pool3, pool_at, unpool3
from .crf import CRF_PRESETS, DenseCRF, Kernel, crf_filter, kernel_filter
from .deconv import as_convolution, bilinear_kernel, deconv, uconv
from .lattice import Filters, Lattice
from .meanfield import mean_field, messages, unary_from_probabilities
from .switches import Switches, fixed_unpool, pool, unpool
from .whitening import ChannelDeconv, Delinear, FastDeconv, inverse_root

__all__ = [
    "CRF_PRESETS",
    "ChannelDeconv",
    "Delinear",
    "DenseCRF",
    "FastDeconv",
    "Filters",
    "Kernel",
    "Lattice",
    "Switches",
    "as_convolution",
    "bilinear_kernel",
    "crf_filter",
    "deconv",
    "fista",
    "fixed_unpool",
    "inverse_root",
    "ista",
    "kernel_filter",
    "mean_field",
    "messages",
    "pool",
    "pool3",
    "pool_at",
    "uconv",
    "unary_from_probabilities",
    "unpool",
    "unpool3",
]
