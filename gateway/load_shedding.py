"""Refusals for overload, decided from the head alone and answered with prebuilt bytes.

Both matter. A refusal that costs as much as an order melts the gateway when most of a crowd is to be refused.
"""

from __future__ import annotations

import zlib

from commerce.kernel.errors import ProblemError
from gateway import problems
from gateway.admission import Admission
from gateway.auth import Authenticator
from gateway.fast_path_responses import ResponseHeads
from gateway.known_keys import KnownKeys
from gateway.room_status import RoomStatus

_REQUEST_ID = "@request-id@"


class PrebuiltRefusals:
    """The responses with one refusal; they differ in Retry-After and request id only."""

    def __init__(self, refusal: ProblemError, heads: ResponseHeads) -> None:
        self.ends_ms = 0
        """when it ends for certain, in milliseconds since 1970; 0: nobody knows"""
        self.code, self.status, self.retry_after_s = refusal.code, refusal.status, refusal.retry_after_s or 0
        body = problems.raw_problem(refusal, _REQUEST_ID).body
        self._before_id, self._after_id = body.split(_REQUEST_ID.encode())
        self._fixed_length = len(self._before_id) + len(self._after_id)
        self._heads = heads
        self._second, self._head = -1, b""

    def render(self, request_id: str, retry_after_s: int, now: float) -> bytes:
        """Build a response; `retry_after_s` 0 leaves the header out, `now` is perf_counter's."""
        if int(now) != self._second:
            self._second = int(now)
            self._head = self._heads.response_head(self.status, now, problems.CONTENT_TYPE).encode("latin-1")
        id_bytes = request_id.encode("latin-1")
        retry_after = b"Retry-After: %d\r\n" % retry_after_s if retry_after_s else b""
        return b"%b%d\r\n%bX-Request-Id: %b\r\n\r\n%b%b%b" % (
            self._head,
            self._fixed_length + len(id_bytes),
            retry_after,
            id_bytes,
            self._before_id,
            id_bytes,
            self._after_id,
        )


class LoadShedder:
    """Decides which orders an overloaded gateway refuses, before it reads more of them than the head."""

    def __init__(
        self,
        admission: Admission,
        auth: Authenticator,
        known_keys: KnownKeys,
        room_status: RoomStatus,
        heads: ResponseHeads,
    ) -> None:
        self._admission = admission
        self._auth = auth
        self._known_keys = known_keys
        self._room_status = room_status
        self._heads = heads
        self._prebuilt: dict[str, PrebuiltRefusals] = {}

    def refuses(
        self,
        pressure: float,
        authorization: bytes | str | None,
        key: bytes | str | None,
        room_ticket: bytes | str | None = None,
    ) -> bool:
        """Tell whether an order is refused at a pressure above 0.

        Repeats of known keys and orders of customers whose turn it is in a waiting room come before others. A token
        that was not verified lately is not verified now, which costs more than the refusal: its text takes the place of
        the user.
        """
        user = self._auth.find_recent_customer(authorization)
        token = b"" if authorization is None else _encode(authorization)
        # Of an unknown user the token alone: there are many ways to write the rest.
        user_hash = zlib.crc32(token.split(b" ")[-1]) if user is None else user.user_hash
        if self._admission.admits(pressure, user_hash):
            return False
        if not self._admission.admits_preferred(pressure):
            return True
        if key is not None and self._known_keys.has(token, _encode(key)):
            return False
        return user is None or room_ticket is None or not self._room_status.has_turn(user.subject, room_ticket)

    def check(
        self,
        now: float,
        authorization: bytes | str | None,
        key: str | None,
        room_ticket: bytes | str | None = None,
    ) -> None:
        """Raise `Overloaded` if an order is refused; `now` is perf_counter's."""
        pressure = self._admission.pressure(now)
        if pressure > 0 and self.refuses(pressure, authorization, key, room_ticket):
            raise self._admission.refusal()

    def prebuilt(self) -> PrebuiltRefusals:
        """Return the responses with the present refusal."""
        refusal = self._admission.refusal()
        prebuilt = self._prebuilt.get(refusal.detail)
        if prebuilt is None:
            prebuilt = self._prebuilt[refusal.detail] = PrebuiltRefusals(refusal, self._heads)
        return prebuilt


def _encode(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
