"""The bundle: a finished run as files that the service reads."""
