"""Measurements that claims stand on; each is a command of its own."""
