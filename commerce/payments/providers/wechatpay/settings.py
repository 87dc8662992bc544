"""The account at WeChat Pay: numbers, keys, addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

PUBLIC_KEY_ID_PREFIX = "PUB_KEY_ID_"
_MIN_KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class WeChatPayAccount:
    """A merchant's account. `serial` is the merchant certificate's serial number as 40 hexadecimal digits.

    WeChat Pay signs with the key of a platform certificate, which the adapter downloads, or (accounts since 2024) with
    a key that never changes: `public_key`, identified by `public_key_id`."""

    app_id: str
    mch_id: str
    serial: str
    private_key: RSAPrivateKey = field(repr=False)
    api_v3_key: bytes = field(repr=False)
    base_url: str
    notify_url: str
    public_key: RSAPublicKey | None = field(default=None, repr=False)
    public_key_id: str | None = None

    @classmethod
    def load(
        cls,
        *,
        app_id: str,
        mch_id: str,
        serial: str,
        private_key: str,
        api_v3_key: str,
        base_url: str,
        notify_url: str,
        public_key: str = "",
        public_key_id: str = "",
    ) -> WeChatPayAccount:
        """Create an account from strings; keys are PEM.

        Raises `ValueError` with what to do; its text never holds a secret."""
        if not re.fullmatch(r"[0-9A-Za-z_\-]{1,32}", app_id):
            raise ValueError("WeChat Pay app_id: set the appid that is bound to the merchant number, like wx8888888888")
        if not re.fullmatch(r"[0-9]{1,32}", mch_id):
            raise ValueError("WeChat Pay mch_id: set the merchant number, which is all digits")
        if not re.fullmatch(r"[0-9A-Fa-f]{1,64}", serial):
            raise ValueError(
                "WeChat Pay serial: set the merchant certificate's serial number in hexadecimal, "
                "which `openssl x509 -in apiclient_cert.pem -noout -serial` prints"
            )
        if len(api_v3_key.encode()) != 32:
            raise ValueError("WeChat Pay api_v3_key: set the APIv3 key of the merchant platform, exactly 32 bytes")
        for name, url in (("base_url", base_url), ("notify_url", notify_url)):
            if not re.fullmatch(r"https?://[^\s?#]+", url):
                raise ValueError(f"WeChat Pay {name}: set an address that begins with https:// and has no query")
        if bool(public_key) != bool(public_key_id):
            raise ValueError("WeChat Pay public_key and public_key_id: set both, or neither to use certificates")
        if public_key_id and not public_key_id.startswith(PUBLIC_KEY_ID_PREFIX):
            raise ValueError(f"WeChat Pay public_key_id: set the id with its beginning, {PUBLIC_KEY_ID_PREFIX}")
        return cls(
            app_id=app_id,
            mch_id=mch_id,
            serial=serial.upper(),
            private_key=_private(private_key),
            api_v3_key=api_v3_key.encode(),
            base_url=base_url.rstrip("/"),
            notify_url=notify_url,
            public_key=_public(public_key) if public_key else None,
            public_key_id=public_key_id or None,
        )


def _private(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _MIN_KEY_BITS:
        raise ValueError("WeChat Pay private_key: set the whole text of apiclient_key.pem, an RSA key of 2048 bits")
    return key


def _public(pem: str) -> RSAPublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < _MIN_KEY_BITS:
        raise ValueError("WeChat Pay public_key: set the whole text of pub_key.pem, an RSA key of 2048 bits")
    return key
