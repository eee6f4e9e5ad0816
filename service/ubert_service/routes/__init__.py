"""One module for each group of routes: HTTP in and out, no arithmetic."""
