"""Step times, memory and accuracy of the onnx trainer beside torch."""
