"""A review's identifier: a digest of its content, so that the same review has the same one wherever it comes from."""

import hashlib
import struct


def review_id(*, user: str, item: str, timestamp: int, rating: float, text: str) -> str:
    """The digest of a review's content: 16 lower-case hexadecimal characters.

    The rating is hashed as the float32 that a review table stores, and every text after its length, so that different
    reviews never give the same bytes to hash. The domain is left out: it belongs to the item, and the same review
    found in two files must be recognised as one.
    """
    digest = hashlib.blake2b(struct.pack("<qf", timestamp, rating + 0.0), digest_size=8)
    for part in (user, item, text):
        encoded = part.encode()
        digest.update(struct.pack("<q", len(encoded)))
        digest.update(encoded)
    return digest.hexdigest()
