"""Images: files and DICOM, sources, the reduction to low resolution, crops and batches.

`image_files` reads and writes; `sources` opens the images of a config; `degradation` and
`acquisition` make the low resolution; `pipeline` makes batches of crops; `records` and `nih` are
for NIH ChestX-ray14.
"""
