"""From items to vectors: one row per item and modality, with a mask of what is missing."""
