"""Training: base models, packed batches, the loop."""
