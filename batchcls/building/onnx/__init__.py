"""ONNX files, as people have them and as engines need them."""
