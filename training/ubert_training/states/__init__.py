"""Encoder states: computed, cached, compacted and written to the store."""
