"""Write QONNX: ONNX whose nodes say which integers weights and activations are."""
