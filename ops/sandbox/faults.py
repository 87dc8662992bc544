"""Fault injection for simulated providers and carriers, by HTTP or step by step from a scenario file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from commerce.kernel.clock import Clock
from commerce.kernel.durable_files import replace_file

_logger = logging.getLogger(__name__)
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Millis = Annotated[int, msgspec.Meta(ge=0)]


class BaseFaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults that providers and carriers have in common.

    Shares range from 0 to 1, fields in `_ms` are milliseconds.
    """

    slow_share: Share = 0.0
    """Share of requests that are carried out, but answered `slow_ms` later."""
    slow_ms: Millis = 5_000
    down: bool = False
    """Serve no request: close the connection or answer 503. Webhooks, payments and shipments continue."""
    down_until_ms: Millis = 0
    """End of `down` in milliseconds since 1970; 0: until `down` is reset."""

    webhook_delay_ms: Millis = 200
    """Delay of the webhook after a payment, a refund or an event."""
    wrong_signature_share: Share = 0.0
    """Share of webhooks with a wrong signature at every attempt, so that only a query returns the truth."""
    duplicate_share: Share = 0.0
    """Share of webhooks that are sent twice at once and again a moment later."""
    delayed_share: Share = 0.0
    """Share of webhooks that are sent `extra_delay_ms` later."""
    extra_delay_ms: Millis = 30_000
    dropped_share: Share = 0.0
    """Share of webhooks that are never sent."""
    reordered_share: Share = 0.0
    """Share of trades or shipments with webhooks in the wrong order.

    The first webhook is `extra_delay_ms` late.
    """

    def is_down(self, now_ms: int) -> bool:
        return self.down and (self.down_until_ms == 0 or now_ms < self.down_until_ms)


class ProviderFaults(BaseFaults, frozen=True, forbid_unknown_fields=True):
    """Faults of one payment provider; the defaults are a provider that works correctly.

    A reordered payment webhook is sent once more after the webhook of each refund. The second copy of a duplicate has
    its own webhook id.
    """

    approve: Literal["ask", "auto", "refuse"] = "ask"
    """Decision on a trade.

    `ask`: a person decides on the page. `auto` and `refuse`: a robot pays or refuses after `pay_after_ms`.
    """
    pay_after_ms: Millis = 500
    refused_share: Share = 0.0
    """Share of a paying robot's trades that it refuses."""
    pay_late_share: Share = 0.0
    """Share of a paying robot's trades that it pays just before they expire."""
    wrong_amount_share: Share = 0.0
    """Share of webhooks with a wrong amount at every attempt."""

    refund_ms: Millis = 0
    """Time that a refund takes from its acceptance to its end."""
    refund_closed_share: Share = 0.0
    """Share of refunds that WeChat Pay closes: their numbers never succeed, others may."""
    refund_abnormal_share: Share = 0.0
    """Share of refunds that the customer's bank does not take until they go to another account."""
    refund_error_share: Share = 0.0
    """Share of requests for refunds with a system error; half of them are carried out all the same."""
    refund_limited_share: Share = 0.0
    """Share of requests for refunds that are refused because there are too many."""
    account_closed_share: Share = 0.0
    """Share of trades whose customer has no account any more: they cannot be refunded."""
    merchant_balance: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Money that the merchant has for refunds in all; more is refused until it is raised. None: no limit."""


class CarrierFaults(BaseFaults, frozen=True, forbid_unknown_fields=True):
    """Faults of one carrier; the defaults are a carrier that works correctly.

    The journey of a shipment is decided when it is booked. Of a reordered shipment every other webhook is late.
    """

    refused_share: Share = 0.0
    """Share of bookings or subscriptions that the carrier refuses."""
    unknown_code_share: Share = 0.0
    """Share of shipments with one event whose code is unknown."""
    failed_share: Share = 0.0
    """Share of shipments whose first delivery attempt fails."""
    lost_share: Share = 0.0
    """Share of shipments lost in transit; the carrier reports it if its protocol has a code for it."""
    returned_share: Share = 0.0
    """Share of shipments that are returned to the sender."""
    time_factor: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Number of times that shipments move faster than in reality; None: the factor of the whole sandbox."""


class ScenarioStep(NamedTuple):
    """Faults of one provider or carrier that apply from `after_s` seconds after the start of the server."""

    after_s: float
    system: str
    faults: Any


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    after_s: Annotated[float, msgspec.Meta(ge=0)]
    system: str
    faults: dict[str, Any]


class _Scenario(msgspec.Struct, forbid_unknown_fields=True):
    step: list[_Step] = []


def read_scenario(file: Path, providers: Iterable[str], carriers: Iterable[str] = ()) -> list[ScenarioStep]:
    """Read the steps of a scenario file, ordered by time.

    Raises `ValueError` if the file is not valid or names an unknown system.
    """
    fault_types: dict[str, type[ProviderFaults | CarrierFaults]] = dict.fromkeys(carriers, CarrierFaults)
    fault_types |= dict.fromkeys(providers, ProviderFaults)
    try:
        steps = msgspec.toml.decode(file.read_bytes(), type=_Scenario).step
        unknown = {step.system for step in steps} - fault_types.keys()
        if unknown:
            raise ValueError(f"cannot read {file}: there is no provider or carrier {', '.join(sorted(unknown))}")
        converted = [
            ScenarioStep(step.after_s, step.system, msgspec.convert(step.faults, fault_types[step.system]))
            for step in steps
        ]
    except msgspec.MsgspecError as error:
        raise ValueError(f"cannot read {file}: {error}") from None
    return sorted(converted, key=lambda step: step.after_s)


async def play_scenario(clock: Clock, steps: Iterable[ScenarioStep], set_faults: Callable[[str, Any], None]) -> None:
    """Set the faults of each step at its time, counted from now on."""
    started = clock.monotonic()
    for step in steps:
        await clock.sleep(max(0.0, started + step.after_s - clock.monotonic()))
        set_faults(step.system, step.faults)
        _logger.info("scenario step applied", extra={"system": step.system, "after_s": step.after_s})


F = TypeVar("F", bound=BaseFaults)


class FaultRegistry(Generic[F]):
    """Current faults by system, kept in a file so that they survive a restart."""

    def __init__(self, fault_type: type[F], seed: int = 0, file: Path | None = None) -> None:
        """Read `file` if it exists. Raises `ValueError` if it is not a faults file of this version."""
        self._no_faults = fault_type()
        self._seed = seed
        self._file = file
        self._faults: dict[str, F] = {}
        if file is not None and file.exists():
            try:
                self._faults = msgspec.json.decode(file.read_bytes(), type=dict[str, fault_type])  # type: ignore[valid-type]
            except msgspec.MsgspecError as error:
                raise ValueError(f"cannot read {file}: {error}; delete {file.parent}") from None

    def get(self, system: str) -> F:
        return self._faults.get(system, self._no_faults)

    def set(self, system: str, faults: F) -> None:
        """Replace the faults of a system and store them."""
        self._faults[system] = faults
        if self._file is not None:
            replace_file(self._file, msgspec.json.encode(self._faults))

    def draw_fraction(self, purpose: str, subject: str) -> float:
        """Return a pseudo-random number in [0, 1) that depends on the seed, the purpose and the subject only.

        A run can therefore be repeated, and two purposes are independent for one subject.
        """
        digest = blake2b(f"{self._seed}/{purpose}/{subject}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big") / 2**56

    def is_selected(self, share: float, fault: str, subject: str) -> bool:
        """Return True if the subject is among the share that the fault hits."""
        return share > 0 and self.draw_fraction(fault, subject) < share


class ProviderFaultRegistry(FaultRegistry[ProviderFaults]):
    """Current faults of the payment providers."""

    def __init__(self, seed: int = 0, file: Path | None = None) -> None:
        super().__init__(ProviderFaults, seed, file)
