"""The shop's account at SF Express: codes, cards, secrets, and the product by which it ships."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class SfExpressAccount:
    """A customer account. `monthly_card` pays the postage; cash collected on delivery goes to `cod_card`.

    `express_type` is the product's number in SF's table of products. `webhook_key` is our own secret: it is part of the
    address to which SF sends routes."""

    partner_id: str
    check_word: str = field(repr=False)
    monthly_card: str
    base_url: str
    webhook_key: str = field(repr=False)
    express_type: int
    cod_card: str

    @classmethod
    def load(
        cls,
        *,
        partner_id: str,
        check_word: str,
        monthly_card: str,
        base_url: str,
        webhook_key: str,
        express_type: str = "1",
        cod_card: str = "",
    ) -> Self:
        """Check the credentials. Without `cod_card` the monthly card collects too.

        Raises `ValueError` with the remedy if one cannot be used; it shows no secret."""
        if not re.fullmatch(r"[0-9A-Za-z_\-]{1,64}", partner_id):
            raise ValueError("SF Express partner_id: set the customer code that the open platform shows, like Y7hHmkqf")
        if not re.fullmatch(r"[!-~]{8,128}", check_word):
            raise ValueError("SF Express check_word: set the check word (校验码) that the open platform shows")
        for name, card in (("monthly_card", monthly_card), ("cod_card", cod_card or monthly_card)):
            if not re.fullmatch(r"[0-9]{10}", card):
                raise ValueError(f"SF Express {name}: set the number of the card, exactly 10 digits")
        if not re.fullmatch(r"https?://[^\s?#]+", base_url):
            raise ValueError("SF Express base_url: set an address that begins with https:// and has no query")
        if not re.fullmatch(r"[0-9A-Za-z_\-]{16,128}", webhook_key):
            raise ValueError(
                "SF Express webhook_key: generate 16 to 128 letters and digits, and register the address of webhooks "
                "with ?key= and them at its end"
            )
        if not re.fullmatch(r"[1-9][0-9]{0,4}", express_type):
            raise ValueError(
                "SF Express express_type: set the number of the product in your contract, like 1 or 2, from "
                "https://open.sf-express.com/developSupport/734349?activeIndex=324604"
            )
        return cls(
            partner_id=partner_id,
            check_word=check_word,
            monthly_card=monthly_card,
            base_url=base_url,
            webhook_key=webhook_key,
            express_type=int(express_type),
            cod_card=cod_card or monthly_card,
        )
