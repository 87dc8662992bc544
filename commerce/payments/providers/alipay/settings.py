"""The account at Alipay: ids, addresses, and the keys of both sides.

The open platform's console shows keys as bare base64 of their DER form; openssl writes PEM. Both are read.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

MIN_KEY_BITS = 2048
"""required by RSA2"""


@dataclass(frozen=True, slots=True)
class AlipayAccount:
    """An application on Alipay's open platform. Alipay sends webhooks to `notify_url`."""

    app_id: str
    seller_id: str
    gateway_url: str
    notify_url: str
    merchant_key: RSAPrivateKey = field(repr=False)
    alipay_key: RSAPublicKey = field(repr=False)

    @classmethod
    def load(
        cls, *, app_id: str, seller_id: str, gateway_url: str, notify_url: str, merchant_key: str, alipay_key: str
    ) -> Self:
        """Create an account from strings. Keys are PEM, or base64 as the console shows them.

        Raises `ValueError` with what to do; its text never holds a key."""
        if not (app_id.isascii() and app_id.isdigit()):
            raise ValueError("app_id: set the digits that the open platform shows as the application's APPID")
        if not (seller_id.isascii() and seller_id.isdigit() and seller_id.startswith("2088") and len(seller_id) == 16):
            raise ValueError("seller_id: set the merchant's PID, 16 digits that begin with 2088")
        for name, url in (("gateway_url", gateway_url), ("notify_url", notify_url)):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"{name}: set an absolute http or https address without a query")
        return cls(app_id, seller_id, gateway_url, notify_url, _private_key(merchant_key), _public_key(alipay_key))


def _private_key(text: str) -> RSAPrivateKey:
    try:
        is_pem, raw = _key_bytes(text)
        key = load_pem_private_key(raw, None) if is_pem else load_der_private_key(raw, None)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error):
        raise ValueError(
            "merchant_key: set the application's private key (应用私钥) without a password, as PEM or base64"
        ) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise ValueError(f"merchant_key: set an RSA key of {MIN_KEY_BITS} bits or more, which RSA2 requires")
    return key


def _public_key(text: str) -> RSAPublicKey:
    try:
        is_pem, raw = _key_bytes(text)
        key = load_pem_public_key(raw) if is_pem else load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm, binascii.Error):
        raise ValueError(
            "alipay_key: set Alipay's public key (支付宝公钥, not the application's), as PEM or base64"
        ) from None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise ValueError(f"alipay_key: set an RSA key of {MIN_KEY_BITS} bits or more, which RSA2 requires")
    return key


def _key_bytes(text: str) -> tuple[bool, bytes]:
    text = text.strip()
    if text.startswith("-----BEGIN "):
        return True, text.encode()
    return False, base64.b64decode("".join(text.split()), validate=True)
