"""Export of a finished run as a bundle, the files that the service reads."""
