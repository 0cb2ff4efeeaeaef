"""Measure the quality of upscaled images."""
