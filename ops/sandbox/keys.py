"""The keys and ids that a shop and the sandbox's providers and carriers have agreed on: made once for a machine, for
both sides."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ops.sandbox.wechatpay import make_certificate

_JSON = "sandbox.json"
_CERTIFICATE = "wechatpay-platform-certificate.pem"
_PRIVATE = ("alipay-merchant", "alipay-platform", "wechatpay-merchant", "wechatpay-platform")
_VALID = timedelta(days=5 * 365 + 1)


class MerchantIds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is agreed besides the keys; `sandbox.json`. It holds secrets: `wechatpay_api_v3_key`, 32 characters, SF's
    check word and the key in its push address, kuaidi100's key and salt."""

    alipay_app_id: str
    alipay_seller_id: str
    wechatpay_app_id: str
    wechatpay_mch_id: str
    wechatpay_merchant_serial: str
    wechatpay_api_v3_key: str
    sf_express_partner_id: str
    sf_express_check_word: str
    sf_express_monthly_card: str
    sf_express_webhook_key: str
    kuaidi100_customer: str
    kuaidi100_key: str
    kuaidi100_salt: str


class Pair(NamedTuple):
    """An RSA key as PEM text: PKCS#8 without a password, and its public half as SubjectPublicKeyInfo."""

    private: str
    public: str


@dataclass(frozen=True)
class Keys:
    """Everything that both sides need. The shop's settings take the private half of `…_merchant` and the public part of
    `…_platform` (of WeChat Pay the certificate); the sandbox takes the other halves."""

    ids: MerchantIds
    alipay_merchant: Pair
    alipay_platform: Pair
    wechatpay_merchant: Pair
    wechatpay_platform: Pair
    wechatpay_platform_certificate: str
    wechatpay_platform_serial: str
    """As the provider writes it in `Wechatpay-Serial`: hexadecimal digits in upper case."""


def make_keys(directory: Path) -> None:
    """Write what is missing, readable for its owner only; what is there stays. Raises `OSError` or `ValueError`."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_ids(directory / _JSON)
    for name in _PRIVATE:
        if not (directory / f"{name}.pem").exists():
            key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
            _write(directory / f"{name}.pem", _pair(key).private.encode())
    platform = _read_private(directory, "wechatpay-platform")
    file = directory / _CERTIFICATE
    if file.exists() and _read_certificate(directory).public_key() != platform.public_key():
        file.unlink()  # it belongs to a key that was lost
    if not file.exists():
        now = datetime.now(UTC)
        _write(file, make_certificate(platform, now - timedelta(days=1), now + _VALID).encode())


def read_keys(directory: Path) -> Keys:
    """What `make_keys` wrote. Raises `OSError` or `ValueError` if a file is missing or is none of ours."""
    certificate = _read_certificate(directory)
    return Keys(
        ids=msgspec.json.decode((directory / _JSON).read_bytes(), type=MerchantIds),
        alipay_merchant=_pair(_read_private(directory, "alipay-merchant")),
        alipay_platform=_pair(_read_private(directory, "alipay-platform")),
        wechatpay_merchant=_pair(_read_private(directory, "wechatpay-merchant")),
        wechatpay_platform=_pair(_read_private(directory, "wechatpay-platform")),
        wechatpay_platform_certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        wechatpay_platform_serial=f"{certificate.serial_number:X}",
    )


def _make_ids(file: Path) -> None:
    """An older file may not have them all."""
    known: dict[str, str] = msgspec.json.decode(file.read_bytes(), type=dict[str, str]) if file.exists() else {}
    if not set(MerchantIds.__struct_fields__) <= known.keys():
        made = msgspec.json.encode({**msgspec.to_builtins(_new_ids()), **known})
        _write(file, msgspec.json.format(made), instead=bool(known))


def _new_ids() -> MerchantIds:
    def digits(count: int) -> str:
        return "".join(secrets.choice("0123456789") for _ in range(count))

    return MerchantIds(
        alipay_app_id=f"2021{digits(12)}",
        alipay_seller_id=f"2088{digits(12)}",
        wechatpay_app_id=f"wx{secrets.token_hex(8)}",
        wechatpay_mch_id=f"19{digits(8)}",
        wechatpay_merchant_serial=f"{x509.random_serial_number():X}",
        wechatpay_api_v3_key=secrets.token_hex(16),
        sf_express_partner_id=f"FG{secrets.token_hex(4).upper()}",
        sf_express_check_word=secrets.token_hex(16),
        sf_express_monthly_card=digits(10),
        sf_express_webhook_key=secrets.token_urlsafe(24),
        kuaidi100_customer=secrets.token_hex(16).upper(),
        kuaidi100_key=secrets.token_hex(6),
        kuaidi100_salt=secrets.token_hex(16),
    )


def _pair(key: rsa.RSAPrivateKey) -> Pair:
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Pair(private.decode(), public.decode())


def _read_private(directory: Path, name: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key((directory / f"{name}.pem").read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{name}.pem is no RSA key")
    return key


def _read_certificate(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / _CERTIFICATE).read_bytes())


def _write(file: Path, content: bytes, *, instead: bool = False) -> None:
    """Whole or not at all; if another process was first, its file stays, unless this is to be there `instead`."""
    made = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    if instead:
        made.replace(file)
        return
    try:
        file.hardlink_to(made)
    except FileExistsError:
        return
    finally:
        made.unlink()
