"""Calibrated intervals around upscaled images, and tiles whose error may be large.

Arrays are NumPy, in 8-bit gray levels: integer values from 0 to 255, also of deeper images. The low
resolution is [h, w], and the upscaled image and the true one are [sh, sw], with sh = scale * h and
sw = scale * w.
"""
