"""The basis in which rating curves are fitted."""

import numpy as np

from ubert_model.config import RatingScale
from ubert_model.rating.curve import RatingCurve

SEGMENTS = 4
"""Equal parts that a scale is divided into: from one star to the next, for one to five."""


def curve_segments(scale: RatingScale) -> list[RatingCurve]:
    """Curves from 0 that rise by 1 over one segment each; a fitted curve is a weighted sum of them."""
    return [RatingCurve.of_rises(scale, rises) for rises in np.eye(SEGMENTS).tolist()]
