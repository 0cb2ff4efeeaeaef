"""Agreement of upscaled images with their input: reduced again, they are the input.

`Reduction` is how the input was made, such as Pillow's bicubic filter. `project`, in JAX, moves
upscaled floats into the box of +-0.2 gray levels around the input; `settle`, on the host, then
changes single pixels of the rounded image until its reduction equals the input, in the arithmetic
of Pillow. `jaxsr.inference.model.Model.upscale` does both.

>>> import numpy as np
>>> film = np.random.default_rng(0).integers(60, 200, (64, 64, 1), np.uint8)
>>> reduction = Reduction(scale=4)
>>> lr = reduction(film)
>>> sr = project(np.full((1, 64, 64, 1), 0.5, np.float32), lr[None] / 255, 255, reduction)
>>> image, found = settle(np.asarray(sr[0]), lr, reduction, white=255)
>>> found.equal, found.pixels, bool((reduction(image) == lr).all())
(256, 256, True)
"""

from jaxsr.inference.agreement.exact import Agreement, agreement, settle
from jaxsr.inference.agreement.projection import MARGIN, project
from jaxsr.inference.agreement.reduction import KINDS, Reduction, matrix

__all__ = ['KINDS', 'MARGIN', 'Agreement', 'Reduction', 'agreement', 'matrix', 'project', 'settle']
