"""What a provider or a carrier is told to do wrong: by HTTP, or step by step by a scenario file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from commerce.kernel.clock import Clock

_logger = logging.getLogger(__name__)
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Millis = Annotated[int, msgspec.Meta(ge=0)]


class BaseFaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What anybody's server may do wrong. Shares go from 0 to 1, names with `_ms` are milliseconds."""

    slow_share: Share = 0.0
    """Of the requests: what was asked is done, and the answer comes `slow_ms` later."""
    slow_ms: Millis = 5_000
    down: bool = False
    """No request is served: the connection is closed or the answer is 503. All else goes on."""
    down_until_ms: Millis = 0
    """When `down` is over, in milliseconds since 1970; 0: when it is switched back."""

    wrong_signature_share: Share = 0.0
    """The callback is wrong each time it is sent, so that only asking tells the truth."""
    twice_share: Share = 0.0
    """Sent twice at once, and once more a moment later."""
    late_share: Share = 0.0
    late_ms: Millis = 30_000
    never_share: Share = 0.0
    shuffled_share: Share = 0.0
    """In the wrong order: the first comes `late_ms` after its time."""

    def is_down(self, now_ms: int) -> bool:
        return self.down and (self.down_until_ms == 0 or now_ms < self.down_until_ms)


class ProviderFaults(BaseFaults, frozen=True, forbid_unknown_fields=True):
    """How one provider of payments behaves; as it is made it behaves well."""

    approve: Literal["ask", "auto", "refuse"] = "ask"
    """Who decides on a payment: a person on the page, or a robot after `pay_after_ms` that pays or refuses."""
    pay_after_ms: Millis = 500
    refused_share: Share = 0.0
    """Of the trades of a robot that pays: it refuses them."""
    pay_late_share: Share = 0.0
    """The robot pays just before the trade expires."""
    callback_ms: Millis = 200
    """How long after a payment or refund its callback is sent. One that is shuffled comes once more after each
    refund's; one that is sent twice has a second notice id the second time."""
    wrong_amount_share: Share = 0.0
    """As with the signature."""


class CarrierFaults(BaseFaults, frozen=True, forbid_unknown_fields=True):
    """How one carrier behaves; as it is made it behaves well. What becomes of a parcel is settled when it is booked."""

    refused_share: Share = 0.0
    """Of the bookings, or of the parcels that it is asked to follow: it will not."""
    push_ms: Millis = 200
    """How long after an event its push is sent. Of parcels that are shuffled, every other push is late."""
    unknown_code_share: Share = 0.0
    """Of the parcels: one of their events has a code that nobody knows."""
    failed_share: Share = 0.0
    """Nobody is at home the first time."""
    lost_share: Share = 0.0
    """On the way; the carrier says so, if it has a word for it."""
    returned_share: Share = 0.0
    speed: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How much faster than the world's the clock goes that parcels move on; None: as the sandbox was started."""


class Step(NamedTuple):
    """The switches of a provider or carrier, of its kind, from a time on, in seconds after the start of the server."""

    after_s: float
    provider: str
    switches: Any


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    after_s: Annotated[float, msgspec.Meta(ge=0)]
    provider: str
    switches: dict[str, Any]


class _Scenario(msgspec.Struct, forbid_unknown_fields=True):
    step: list[_Step] = []


def read_scenario(file: Path, providers: Iterable[str], carriers: Iterable[str] = ()) -> list[Step]:
    """The steps in the order of their times. Raises `ValueError` that says what is wrong with the file."""
    kinds: dict[str, type[ProviderFaults | CarrierFaults]] = dict.fromkeys(carriers, CarrierFaults)
    kinds |= dict.fromkeys(providers, ProviderFaults)
    try:
        read = msgspec.toml.decode(file.read_bytes(), type=_Scenario).step
        unknown = {step.provider for step in read} - kinds.keys()
        if unknown:
            raise ValueError(f"{file}: there is no provider {', '.join(sorted(unknown))}")
        steps = [
            Step(step.after_s, step.provider, msgspec.convert(step.switches, kinds[step.provider])) for step in read
        ]
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file}: {error}") from None
    return sorted(steps, key=lambda step: step.after_s)


async def play(clock: Clock, steps: Iterable[Step], switch: Callable[[str, Any], None]) -> None:
    """Switch as the steps say, by the clock from now on."""
    started = clock.monotonic()
    for step in steps:
        await clock.sleep(max(0.0, started + step.after_s - clock.monotonic()))
        switch(step.provider, step.switches)
        _logger.info("a step of the scenario", extra={"provider": step.provider, "after_s": step.after_s})


S = TypeVar("S", bound=BaseFaults)


class FaultRegistry(Generic[S]):
    """The switches of all providers of a kind, kept in a file so that a restart misbehaves as before."""

    def __init__(self, kind: type[S], seed: int = 0, file: Path | None = None) -> None:
        """Raises `ValueError` if the file is none of ours."""
        self._good = kind()
        self._seed = seed
        self._file = file
        self._switches: dict[str, S] = {}
        if file is not None and file.exists():
            try:
                self._switches = msgspec.json.decode(file.read_bytes(), type=dict[str, kind])  # type: ignore[valid-type]
            except msgspec.MsgspecError as error:
                raise ValueError(f"{file}: {error}") from None

    def of(self, provider: str) -> S:
        return self._switches.get(provider, self._good)

    def set(self, provider: str, switches: S) -> None:
        """What is not named in `switches` behaves well again."""
        self._switches[provider] = switches
        if self._file is not None:
            made = self._file.with_suffix(".new")
            made.write_bytes(msgspec.json.encode(self._switches))
            made.replace(self._file)

    def chance(self, what: str, number: str) -> float:
        """From 0 to 1. The same for the same seed, so that a run can be repeated, and for one number independent from
        one `what` to another."""
        digest = blake2b(f"{self._seed}/{what}/{number}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big") / 2**56

    def hits(self, share: float, what: str, number: str) -> bool:
        """Whether this number is among a share."""
        return self.chance(what, number) < share


class ProviderFaultRegistry(FaultRegistry[ProviderFaults]):
    """The switches of the providers of payments."""

    def __init__(self, seed: int = 0, file: Path | None = None) -> None:
        super().__init__(ProviderFaults, seed, file)
