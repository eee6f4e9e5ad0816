"""How work runs on either side: whole files, claims, pieces, shards, threads and clusters."""
