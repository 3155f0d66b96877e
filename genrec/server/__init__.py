"""The HTTP service: recommendations, explanations, conversations and the chat page of one run. Start at `app`."""
