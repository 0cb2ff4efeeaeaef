"""Load trained models and upscale images with them."""
