"""Listening on a port, with an error that says which one and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from commerce.kernel.errors import NotReady


@contextmanager
def explain_bind_errors(host: str, port: int, setting: str) -> Iterator[None]:
    """Whatever goes wrong inside is said of this port, which `setting` names. Raises `NotReady`."""
    try:
        yield
    except OSError as error:
        raise NotReady(
            f"{host}:{port} cannot be listened on ({error.strerror}): stop what uses it, or set {setting}"
        ) from None
