"""The error that is an answer: a request that is refused, with its status code."""

from collections.abc import Mapping

from unpool.errors import UnpoolError


class Refusal(UnpoolError):
    """A request is refused.

    Args:
        status: the status code.
        message: what came, what was wanted, and what to do.
        headers: of the answer.

    >>> Refusal(429, "busy", {"retry-after": "2"}).status
    429
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
