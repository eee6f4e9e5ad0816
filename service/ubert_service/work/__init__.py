"""The blocking work of requests: what may come in, what waits, and the threads that do it."""
