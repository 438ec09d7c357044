"""Why a request is not answered: one exception for each reason, with its status in HTTP and in gRPC."""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):  # noqa: N818  what it is is no error of the server
    """Base of every answer that is no answer. The message goes to the client.

    Attributes:
        status: of HTTP.
        code: name of the status in gRPC.
    """

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(Refusal):
    """The request is not one that this model can answer."""

    status, code = 400, "INVALID_ARGUMENT"


class Unauthorized(Refusal):
    """The token is missing or another one."""

    status, code = 401, "UNAUTHENTICATED"


class NotFound(Refusal):
    """No model has this name, or not in this version."""

    status, code = 404, "NOT_FOUND"


class TooSlow(Refusal):
    """The request did not arrive in time."""

    status, code = 408, "DEADLINE_EXCEEDED"


class TooLarge(Refusal):
    """The request has more bytes than are accepted."""

    status, code = 413, "RESOURCE_EXHAUSTED"


class Busy(Refusal):
    """As many requests wait as may.

    Args:
        retry_seconds: when it is worth trying again.
    """

    status, code = 503, "UNAVAILABLE"

    def __init__(self, message: str, retry_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Overdue(Refusal):
    """The answer did not come in time."""

    status, code = 504, "DEADLINE_EXCEEDED"
