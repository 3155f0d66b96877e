"""From tables on disk to a catalogue, interactions and splits."""
