"""What surrounds every route: connections, admission, API keys, and error responses."""
