"""Recipes: all that is chosen before a model is trained, a place to train many in, and the search for one."""
