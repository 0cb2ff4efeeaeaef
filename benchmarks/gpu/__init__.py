"""What to do with a few minutes of a GPU: `python -m benchmarks.gpu`; see `docs/gpu.md`."""
