"""Networks in PyTorch: references for this project's networks, and replicas of public code."""
