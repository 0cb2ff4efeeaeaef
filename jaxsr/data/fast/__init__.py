"""What records are made by, compiled by numba: PNG, bicubic and transposition."""
