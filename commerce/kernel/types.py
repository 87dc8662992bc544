"""Types of fields that several packages share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

# Names are shown to people, so they have no control characters and are not blank.
Name = Annotated[
    str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*\Z")
]
Moment = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339")]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
