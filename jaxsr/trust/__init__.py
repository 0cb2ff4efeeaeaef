"""Audit networks: detail that they invent, lesions that they keep, and the judgment of a reader.

An `Enlarge` is any function from integer images [b, h, w, c] to integer images
[b, scale * h, scale * w, c]. Gray values are those of the film's type, 0 to 255 or 65535.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt

Enlarge = Callable[[UInt[np.ndarray, 'b h w c']], UInt[np.ndarray, 'b sh sw c']]
