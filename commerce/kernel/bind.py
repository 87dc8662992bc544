"""Binding a port, with an error that names the port and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from commerce.kernel.errors import NotReady


@contextmanager
def explain_bind_errors(host: str, port: int, setting: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `NotReady` that names the address and the `setting` to change."""
    try:
        yield
    except OSError as error:
        raise NotReady(
            f"cannot bind {host}:{port}: {error.strerror}; stop the process that uses it, or set {setting}"
        ) from None
