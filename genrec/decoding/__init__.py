"""From a prompt to ranked real items, and to text."""
