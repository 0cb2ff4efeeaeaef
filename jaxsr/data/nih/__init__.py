"""NIH ChestX-ray14 (Wang et al., CVPR 2017): 112,120 frontal chest films of 30,805 patients.

`constants.py` is what the NIH Clinical Center says of it, `download.py` fetches the archives,
`local_copy.py` reads a copy on disk as it lies, `metadata.py` the tables beside the images,
`splits.py` deals patients out, `shards.py` writes the records of a part of a copy, and `builder.py`
makes the data set of all parts.
"""
