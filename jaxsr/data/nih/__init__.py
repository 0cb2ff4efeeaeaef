"""NIH ChestX-ray14 (Wang et al., CVPR 2017): 112,120 frontal chest films of 30,805 patients.

`constants.py` holds the publisher's names, links and checksums. `download.py` downloads the
archives, `archives.py` reads them, `local_copy.py` finds what a copy on disk contains in any common
layout, `metadata.py` reads the tables.
`verify.py` checks a copy, `splits.py` assigns patients to splits, `shards.py` writes the records of
one shard of a copy, and `builder.py` combines the shards into a data set.
"""
