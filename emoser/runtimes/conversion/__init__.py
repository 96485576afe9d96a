"""From a model to the graphs of ONNX Runtime and OpenVINO."""
