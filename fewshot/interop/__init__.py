"""Models that other programs read (ONNX, torch.export) or wrote (the original SIB program)."""
