"""Alignment tasks: templates of `prompts/` and training data become examples that tie items to words."""
