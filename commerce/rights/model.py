"""Roles of support, and the rules of decisions about money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

SupportRole = Literal["support_read", "support_answer", "support", "support_lead"]
SUPPORT_ROLES: tuple[SupportRole, ...] = ("support_read", "support_answer", "support", "support_lead")
"""in rising order: each includes those before it"""
CertifiedRight = Literal["support", "support_lead", "claims"]
"""decisions up to the amount and above it, and all decisions on claims"""
OPERATOR = "operator"


class RightsPolicy(Protocol):
    """The section `support` of the settings."""

    @property
    def decide_up_to(self) -> Mapping[str, int]: ...
    @property
    def certificates(self) -> Mapping[CertifiedRight, str]: ...


def include_lower_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return roles together with the roles of support that they include."""
    own = frozenset(roles)
    highest = max((number for number, role in enumerate(SUPPORT_ROLES) if role in own), default=-1)
    return own | frozenset(SUPPORT_ROLES[: highest + 1])
