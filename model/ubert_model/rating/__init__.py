"""From a network's output to a rating and its interval: the bias model, the blend, the scale."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
