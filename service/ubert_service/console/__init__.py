"""The console: a page at ``/`` that asks the service's own routes, from files that the service serves itself."""
