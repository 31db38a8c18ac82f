"""Between an image and a tensor: images, boxes, proposals, metrics; no networks."""
