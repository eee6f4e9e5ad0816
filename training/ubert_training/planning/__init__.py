"""What a catalogue of a given size takes."""
