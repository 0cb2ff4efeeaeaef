"""Smaller networks from larger ones: fewer channels, fewer blocks, fewer bits.

`channel_groups.py` reads from a network's trace which weights belong to one channel, `slicing.py`
keeps some of them, `slimmable.py` runs a network at several sizes, `quantize.py` rounds weights to
int8.
"""
