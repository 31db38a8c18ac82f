"""Export to ONNX, OpenVINO and `torch.export`, and running the exported files."""
