"""Errors of requests, in the shape of OpenAI's API."""

import json
from collections.abc import Mapping
from http import HTTPStatus

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is not answered as it asks."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """An error.

        Args:
            status: of HTTP.
            message: for the client; names field, value expected and next step.
            param: field of the body.
            code: for programs; None: that of the status.
            headers: of the response.
        """
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_")
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """JSON: {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def busy(message: str, seconds: int = 1) -> ApiError:
    """An error 429 that names the seconds after which to try again."""
    return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(max(1, seconds))})
