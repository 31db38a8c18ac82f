"""Generate images of objects from their style, the view and a transformation.

- `Generator` is the network: `Generator.from_pretrained("chairs").view("stool", azimuth=30)`.
- `interpolate`, `turntable`, `morph` and `vary` generate sequences; `write_animation` writes them
  as GIF or MP4.
- `activate_units`, `push_unit` and `find_zoom_unit` show the effect of single units, `mask_cells`
  that of parts of the first maps, and `filter_sheet` the learned filters.
- `track_points` finds corresponding points of two objects.
- `compare_views` compares held-out views with baselines that need no network.
"""

from unpool.generate.baselines import Comparison, blend, compare_views, nearest_view
from unpool.generate.correspondence import mark_points, spread_points, track_points
from unpool.generate.filters import filter_sheet, list_filters
from unpool.generate.generator import Generator, Style, parse_style
from unpool.generate.result import GeneratedImage, write_animation
from unpool.generate.sequences import (
    CHANGES,
    MORPH_FRACTIONS,
    interpolate,
    morph,
    morph_fractions,
    turntable,
    vary,
)
from unpool.generate.units import (
    PATTERNS,
    activate_units,
    count_units,
    find_zoom_unit,
    intervene,
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
