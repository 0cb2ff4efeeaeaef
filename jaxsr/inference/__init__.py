"""From what was trained to enlarged images."""
