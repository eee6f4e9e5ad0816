"""What a request reads: the review lists of its users and items, and the stored states of those reviews."""
