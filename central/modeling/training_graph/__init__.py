"""From a forward ONNX graph to one that computes a whole training step in standard operators."""
