"""Evaluate every row of docs/results.md, and write the page.

    make results DATA="vocmini vocplus"

writes docs/results.md, docs/results.json and the figures beside them. Measurements with the same
weights are cached in RUNS/results. The crops of an image are segmented once, and every row is
computed from their scores.
"""
