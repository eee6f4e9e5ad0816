"""A typed client of the service: :class:`Client` blocks, :class:`AsyncClient` is awaited; they share all but the I/O.

It needs the extra ``client``, httpx and pydantic, and imports neither ONNX Runtime nor the service's web framework.
"""

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
    "DeadlineExceededError",
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
