"""Checks, timings and training in a few minutes on a GPU: `python -m benchmarks.gpu`.

See `docs/gpu.md`.
"""
