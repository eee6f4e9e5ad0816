"""Exceptions of training alone; see :mod:`ubert_model.errors`."""

from ubert_model.errors import ConfigError, InputError, UbertError


class DivergedError(ConfigError):
    """Training diverged by these settings, as it would again: it is deterministic."""


class ReviewFileError(InputError):
    """A review file cannot be read, or holds more bad lines than allowed."""


class BaselineError(UbertError):
    """A baseline model cannot be trained: its library is missing, or fails."""
