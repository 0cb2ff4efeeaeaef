"""How good enlarged images are."""
