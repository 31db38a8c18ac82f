"""Draw objects from what they are: their style, the view, and a transformation.

- `Generator` draws: `Generator.from_pretrained("chairs").view("stool", azimuth=30)`.
- `interpolate`, `turn`, `morph` and `transform` draw in a row; `write_animation` makes a GIF or MP4
  of it.
- `activate`, `push` and `find_zoom` show what single units draw, `mask_cells` what parts of the
  first maps do, `draw_filters` what was learned.
- `carry` finds what of one object corresponds to what of another.
- `compare_views` measures views that were not seen against what can be made without a network.
"""

from unpool.generate.animation import write_animation
from unpool.generate.baselines import Comparison, blend, compare_views, nearest_view
from unpool.generate.codes import Style, parse_style
from unpool.generate.correspond import carry, draw_pairs, spread_points
from unpool.generate.filters import draw_filters, list_filters
from unpool.generate.generator import Generator
from unpool.generate.interventions import intervene, list_layers
from unpool.generate.masks import PATTERNS, mask_cells, pattern
from unpool.generate.result import Drawn
from unpool.generate.sequences import CHANGES, MORPH, interpolate, morph, ramp, transform, turn
from unpool.generate.units import activate, count_units, find_zoom, push

__all__ = [
    "CHANGES",
    "MORPH",
    "PATTERNS",
    "Comparison",
    "Drawn",
    "Generator",
    "Style",
    "activate",
    "blend",
    "carry",
    "compare_views",
    "count_units",
    "draw_filters",
    "draw_pairs",
    "find_zoom",
    "interpolate",
    "intervene",
    "list_filters",
    "list_layers",
    "mask_cells",
    "morph",
    "nearest_view",
    "parse_style",
    "pattern",
    "push",
    "ramp",
    "spread_points",
    "transform",
    "turn",
    "write_animation",
]
