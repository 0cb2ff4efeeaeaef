"""Benchmarks behind the project's performance claims; each module is a command."""
