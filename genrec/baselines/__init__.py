"""Honest rivals: recommenders without a language model."""
