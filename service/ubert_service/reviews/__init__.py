"""Reviews, entities and candidate sets as callers write and list them."""
