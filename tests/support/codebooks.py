"""Random, untrained codebooks in the right shapes."""

import numpy as np

from ubert_model.states.product_code import CENTROIDS, PRODUCT_BITS, Codebook, Codebooks, group_shape


def random_codebooks(state_dim: int, seed: int = 0) -> Codebooks:
    return Codebooks(of={name: _codebook(state_dim, bits, seed) for name, bits in PRODUCT_BITS.items()})


def _codebook(state_dim: int, bits: int, seed: int) -> Codebook:
    random = np.random.default_rng(seed)
    groups, width = group_shape(state_dim, bits)
    square, _ = np.linalg.qr(random.standard_normal((groups * width, groups * width)))
    return Codebook(
        basis=square[:state_dim].astype(np.float32),
        centroids=random.standard_normal((groups, CENTROIDS, width)).astype(np.float32),
    )
