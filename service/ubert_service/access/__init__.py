"""API keys and what each lets its holder do."""
