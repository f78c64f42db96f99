"""One client a service for all tests: each client that is thrown away leaves an open socket behind."""

from functools import cache
from typing import Any

import boto3


@cache
def client(service: str) -> Any:
    """Made at first use, when the `aws` fixture has set the environment."""
    return boto3.client(service)  # type: ignore[call-overload]
