"""Writing and listing reviews, entities and candidate sets."""
