"""The command lines: the service itself, and the operator's tools."""
