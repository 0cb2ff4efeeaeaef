"""Networks in PyTorch: twins of the ones here, and replicas of what others published."""
