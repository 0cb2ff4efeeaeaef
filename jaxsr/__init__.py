"""Super-resolution of chest radiographs in JAX and Flax."""

__version__ = '0.1.0'
