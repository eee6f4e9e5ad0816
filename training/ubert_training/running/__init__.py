"""How any stage runs: its directory, device, processes and progress."""
