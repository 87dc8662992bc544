"""Refusals of an overloaded gateway: decided from the head alone, answered with bytes built once a second.

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


class PrebuiltRefusals:
    """The responses with one refusal; they differ in Retry-After and request id only.

    The body has no request id: the header has it.
    """

    def __init__(self, refusal: ProblemError, heads: ResponseHeads) -> None:
        self.code, self.status, self.retry_after_s = refusal.code, refusal.status, refusal.retry_after_s or 0
        self._body = problems.raw_problem(refusal, None).body
        self._heads = heads
        self._second = -1
        self._beginnings: dict[int, bytes] = {}

    def render(self, request_id: bytes, retry_after_s: int, now: float) -> bytes:
        """Build a response; `retry_after_s` 0 leaves the header out, `now` is perf_counter's."""
        if int(now) != self._second:
            self._second, self._beginnings = int(now), {}
        beginning = self._beginnings.get(retry_after_s)
        if beginning is None:
            beginning = self._beginnings[retry_after_s] = self._begin(retry_after_s, now)
        return b"%b%b\r\n\r\n%b" % (beginning, request_id, self._body)

    def _begin(self, retry_after_s: int, now: float) -> bytes:
        head = self._heads.response_head(self.status, now, problems.CONTENT_TYPE)
        retry_after = f"Retry-After: {retry_after_s}\r\n" if retry_after_s else ""
        return f"{head}{len(self._body)}\r\n{retry_after}X-Request-Id: ".encode("latin-1")


class LoadShedder:
    """Decides which orders an overloaded gateway refuses, before it reads more of them than the head."""

    def __init__(self, admission: Admission, auth: Authenticator, known_keys: KnownKeys, heads: ResponseHeads) -> None:
        self._admission = admission
        self._auth = auth
        self._known_keys = known_keys
        self._heads = heads
        self._prebuilt: dict[str, PrebuiltRefusals] = {}

    def refuses(self, pressure: float, authorization: bytes | str | None, key: bytes | str | None) -> bool:
        """Tell whether an order is refused at a pressure above 0.

        A token that was not verified lately is not verified now, which costs more than the refusal: its text takes the
        place of the user.
        """
        user = self._auth.find_recent_customer(authorization)
        if user is None:
            token = authorization or b""
            user_hash = zlib.crc32(token if isinstance(token, bytes) else token.encode("utf-8", "surrogateescape"))
            is_repeat = False
        else:
            text = key.decode("latin-1") if isinstance(key, bytes) else key
            user_hash, is_repeat = user.user_hash, text is not None and self._known_keys.has(user.subject, text)
        return not self._admission.admits(pressure, user_hash, is_repeat=is_repeat)

    def check(self, now: float, authorization: bytes | str | None, key: str | None) -> None:
        """Raise `Overloaded` if an order is refused; `now` is perf_counter's."""
        pressure = self._admission.pressure(now)
        if pressure > 0 and self.refuses(pressure, authorization, key):
            raise self._admission.refusal()

    def prebuilt(self) -> PrebuiltRefusals:
        """Return the responses with the present refusal."""
        refusal = self._admission.refusal()
        prebuilt = self._prebuilt.get(refusal.detail)
        if prebuilt is None:
            prebuilt = self._prebuilt[refusal.detail] = PrebuiltRefusals(refusal, self._heads)
        return prebuilt
