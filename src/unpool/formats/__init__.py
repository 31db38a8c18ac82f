"""Label maps in the formats of labeling tools: COCO, labelme, YOLO, GeoJSON and Label Studio."""
