"""The models to beat: a module for each library, and the tuning that all share."""
