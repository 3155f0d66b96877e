"""From item vectors to semantic IDs: L codes per item."""
