"""Images, boxes, proposals and metrics; no networks."""
