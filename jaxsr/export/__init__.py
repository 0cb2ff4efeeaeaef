"""Write a model as a file that other programs run: ONNX, StableHLO, or a page for browsers."""
