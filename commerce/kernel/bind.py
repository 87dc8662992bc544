"""Addresses to listen on: their URLs, and errors that name the port and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from commerce.kernel.errors import NotReady

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what a client uses for "all addresses"


def format_address(host: str, port: int) -> str:
    """Return host and port as in a URL: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens on the address."""
    return f"http://{format_address(_LOOPBACK.get(host, host), port)}"


@contextmanager
def explain_bind_errors(host: str, port: int, setting: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `NotReady` that names the address and the `setting` to change."""
    try:
        yield
    except OSError as error:
        raise NotReady(
            f"cannot bind {format_address(host, port)}: {error.strerror}; stop the process that uses it, or set "
            f"{setting}"
        ) from None
