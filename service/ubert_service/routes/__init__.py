"""One module per group of routes: HTTP in and out, no arithmetic."""
