"""Running work, offline and online: atomic files, folder locks, batches, shards, threads and clusters."""
