"""What the process keeps of the store, bounded in bytes and true to it."""
