"""What a request is refused with."""

from __future__ import annotations

from collections.abc import Mapping


class RequestError(Exception):
    """A request that is answered with a status other than 200, and why.

    Args:
        status: Of the response.
        message: For who asked; it may hold what they sent, so it is not logged.
        reason: One of a few words for logs and metrics.
        headers: Of the response.
    """

    def __init__(self, status: int, message: str, reason: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason
        self.headers = dict(headers or {})


def bad_input(message: str) -> RequestError:
    """A request whose content is wrong."""
    return RequestError(400, message, "input")


def busy(status: int, message: str, reason: str) -> RequestError:
    """A request that may come again in a moment."""
    return RequestError(status, message, reason, {"Retry-After": "1"})
