"""What a provider is told to do wrong: by HTTP, or step by step by a scenario file."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Millis = Annotated[int, msgspec.Meta(ge=0)]


class Switches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one provider behaves; as it is made it behaves well. Shares go from 0 to 1, names with `_ms` are
    milliseconds."""

    approve: Literal["ask", "auto", "refuse"] = "ask"
    """Who decides on a payment: a person on the page, or a robot after `pay_after_ms` that pays or refuses."""
    pay_after_ms: Millis = 500
    refused_share: Share = 0.0
    """Of the trades of a robot that pays: it refuses them."""
    pay_late_share: Share = 0.0
    """The robot pays just before the trade expires."""

    slow_share: Share = 0.0
    """Of the requests: what was asked is done, and the answer comes `slow_ms` later."""
    slow_ms: Millis = 5_000
    down: bool = False
    """No request is served: the connection is closed or the answer is 503. Payments and callbacks go on."""
    down_until_ms: Millis = 0
    """When `down` is over, in milliseconds since 1970; 0: when it is switched back."""

    callback_ms: Millis = 200
    """How long after a payment or refund its callback is sent."""
    wrong_signature_share: Share = 0.0
    """The callback is wrong each time it is sent, so that only asking tells the truth; as with the amount."""
    wrong_amount_share: Share = 0.0
    twice_share: Share = 0.0
    """Sent twice at once under one notice id, and a moment later under a second one."""
    late_share: Share = 0.0
    late_ms: Millis = 30_000
    never_share: Share = 0.0
    shuffled_share: Share = 0.0
    """The callback of the payment comes `late_ms` later, and once more after each refund's callback."""

    def is_down(self, now_ms: int) -> bool:
        return self.down and (self.down_until_ms == 0 or now_ms < self.down_until_ms)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider's switches from a time on, in seconds after the start of the server."""

    after_s: Annotated[float, msgspec.Meta(ge=0)]
    provider: str
    switches: Switches


class _Scenario(msgspec.Struct, forbid_unknown_fields=True):
    step: list[Step] = []


def read_scenario(file: Path, providers: Iterable[str]) -> list[Step]:
    """The steps in the order of their times. Raises `ValueError` that says what is wrong with the file."""
    try:
        steps = msgspec.toml.decode(file.read_bytes(), type=_Scenario).step
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file}: {error}") from None
    unknown = {step.provider for step in steps} - set(providers)
    if unknown:
        raise ValueError(f"{file}: there is no provider {', '.join(sorted(unknown))}")
    return sorted(steps, key=lambda step: step.after_s)


class Switchboard:
    """The switches of all providers, kept in a file so that a restart misbehaves as before."""

    def __init__(self, seed: int = 0, file: Path | None = None) -> None:
        """Raises `ValueError` if the file is none of ours."""
        self._seed = seed
        self._file = file
        self._switches: dict[str, Switches] = {}
        if file is not None and file.exists():
            try:
                self._switches = msgspec.json.decode(file.read_bytes(), type=dict[str, Switches])
            except msgspec.MsgspecError as error:
                raise ValueError(f"{file}: {error}") from None

    def of(self, provider: str) -> Switches:
        return self._switches.get(provider, _GOOD)

    def set(self, provider: str, switches: Switches) -> None:
        """What is not named in `switches` behaves well again."""
        self._switches[provider] = switches
        if self._file is not None:
            made = self._file.with_suffix(".new")
            made.write_bytes(msgspec.json.encode(self._switches))
            made.replace(self._file)

    def hits(self, share: float, what: str, number: str) -> bool:
        """Whether this number is among a share. The same for the same seed, so that a run can be repeated, and for one
        number independent from one `what` to another."""
        digest = blake2b(f"{self._seed}/{what}/{number}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big") / 2**56 < share


_GOOD = Switches()
