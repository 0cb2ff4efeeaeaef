"""Smaller networks from larger ones: fewer channels, fewer blocks, fewer bits.

`channel_groups` finds which weights belong to one channel from the trace of a network, with the
labels of `channel_labels` and a rule per operation from `channel_rules`. `slicing` cuts a small
network from a large one, `slimmable` runs a network at several sizes, `quantize` rounds weights to
int8.
"""
