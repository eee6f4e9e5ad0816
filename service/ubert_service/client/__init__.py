"""A typed client of the service: :class:`Client` blocks, :class:`AsyncClient` is awaited; they share all but the I/O.

It imports only what the extra ``client`` lists, and of the service only the schemas.
"""

from ubert_model.errors import ConfigError, InputError
from ubert_service.client.asynchronous import AsyncClient
from ubert_service.client.blocking import Client
from ubert_service.client.calls import RemovedReview, Write
from ubert_service.client.errors import (
    ClientError,
    DeadlineExceededError,
    NotAllowedError,
    NotFoundError,
    OverloadedError,
    ProblemError,
    ServiceUnreachableError,
    UnavailableError,
    UnexpectedAnswerError,
)
from ubert_service.client.policy import RetryPolicy

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ConfigError",
    "DeadlineExceededError",
    "InputError",
    "NotAllowedError",
    "NotFoundError",
    "OverloadedError",
    "ProblemError",
    "RemovedReview",
    "RetryPolicy",
    "ServiceUnreachableError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "Write",
]
