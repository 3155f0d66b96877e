"""Explanations that are true: evidence first, then the text, then a check of every statement.

facts       what the run knows: records, training interactions, content vectors, a person's own words
evidence    facts of one person and one item that speak for the item
language    templates and words of one language, as data
writing     evidence ─► text by template
checking    text ─► statements, each supported by facts, without a claim, or unsupported
lessons     what a model learns to write explanations from, as a source of tasks
explainer   all of it for many requests at once, with a model's text where the model knows words
"""
