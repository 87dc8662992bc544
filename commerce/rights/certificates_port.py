"""Certificates that give rights: whoever issues them implements this port."""

from __future__ import annotations

from typing import Protocol

from commerce.kernel.postgres import Connection


class StaffCertificates(Protocol):
    """Certificates of staff."""

    async def has_certificate(self, connection: Connection, actor: str, code: str) -> bool:
        """Tell whether a person, such as `staff anna`, has a certificate that is valid now.

        Called inside the transaction of the decision, which holds the lock of its order."""
        ...
