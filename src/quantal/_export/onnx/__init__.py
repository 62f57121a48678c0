"""Export to ONNX: packed weights from standard operators, or for onnxruntime alone."""
