"""Between a picture and a tensor: images, boxes, proposals, metrics; no networks."""
