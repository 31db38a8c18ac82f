from .baselines import Comparison, blend, compare_views, nearest_view
from .correspondence import mark_points, spread_points, track_points
from .generator import Generator, Style, parse_style
from .result import GeneratedImage, write_animation
from .sequences import (
    CHANGES,
    MORPH_FRACTIONS,
    interpolate,
    morph,
    morph_fractions,
    turntable,
    vary,
)
from .units import (
    PATTERNS,
    activate_units,
    count_units,
    filter_sheet,
    find_zoom_unit,
    intervene,
    list_filters,
    list_layers,
    mask_cells,
    pattern,
    push_unit,
)

__all__ = [
    "CHANGES",
    "MORPH_FRACTIONS",
    "PATTERNS",
    "Comparison",
    "GeneratedImage",
    "Generator",
    "Style",
    "activate_units",
    "blend",
    "compare_views",
    "count_units",
    "filter_sheet",
    "find_zoom_unit",
    "interpolate",
    "intervene",
    "list_filters",
    "list_layers",
    "mark_points",
    "mask_cells",
    "morph",
    "morph_fractions",
    "nearest_view",
    "parse_style",
    "pattern",
    "push_unit",
    "spread_points",
    "track_points",
    "turntable",
    "vary",
    "write_animation",
]
