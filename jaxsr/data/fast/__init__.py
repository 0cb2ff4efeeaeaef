"""The functions that make records, compiled by numba: PNG, bicubic and transposition."""
