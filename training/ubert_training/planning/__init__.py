"""Capacity planning: the memory, cores, hours and traffic that a catalogue of a given size needs."""
