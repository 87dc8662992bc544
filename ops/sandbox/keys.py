"""Keys and account ids shared by a shop and the sandbox, generated once per machine."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from commerce.kernel.durable_files import create_file
from ops.sandbox.wechatpay import make_certificate

_IDS_FILE = "sandbox.json"
_CERTIFICATE_FILE = "wechatpay-platform-certificate.pem"
_KEY_NAMES = ("alipay-merchant", "alipay-platform", "wechatpay-merchant", "wechatpay-platform")
_MODE = 0o600
_CERTIFICATE_LIFE = timedelta(days=5 * 365 + 1)


class MerchantIds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The merchant's account ids and shared secrets, stored in `sandbox.json`.

    Secrets are `wechatpay_api_v3_key` (32 characters), SF Express's check word and webhook key, and the key and salt
    of kuaidi100.
    """

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


class KeyPair(NamedTuple):
    """An RSA key as PEM text: PKCS#8 without a password, and its public half as SubjectPublicKeyInfo."""

    private: str
    public: str


@dataclass(frozen=True)
class Keys:
    """Ids and keys of both sides.

    The shop's settings take the private half of `…_merchant` and the public half of `…_platform` (for WeChat Pay the
    certificate); the sandbox takes the other halves.
    """

    ids: MerchantIds
    alipay_merchant: KeyPair
    alipay_platform: KeyPair
    wechatpay_merchant: KeyPair
    wechatpay_platform: KeyPair
    wechatpay_platform_certificate: str
    wechatpay_platform_serial: str
    """Serial number as in the header `Wechatpay-Serial`: upper-case hexadecimal digits."""


def make_keys(directory: Path) -> None:
    """Write missing files, readable for their owner only, and keep existing ones.

    Raises `OSError` if the directory cannot be written, `ValueError` if a file is not valid.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (directory / _IDS_FILE).exists():
        create_file(directory / _IDS_FILE, msgspec.json.format(msgspec.json.encode(_generate_ids())), _MODE)
    for name in _KEY_NAMES:
        if not (directory / f"{name}.pem").exists():
            key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
            create_file(directory / f"{name}.pem", _encode_pair(key).private.encode(), _MODE)
    platform = _read_private_key(directory, "wechatpay-platform")
    file = directory / _CERTIFICATE_FILE
    if file.exists() and _read_certificate(directory).public_key() != platform.public_key():
        file.unlink()  # it belongs to a key that was lost
    if not file.exists():
        now = datetime.now(UTC)
        certificate = make_certificate(platform, now - timedelta(days=1), now + _CERTIFICATE_LIFE)
        create_file(file, certificate.encode(), _MODE)


def read_keys(directory: Path) -> Keys:
    """Read the files that `make_keys` wrote.

    Raises `OSError` if a file is missing, `ValueError` if one is not valid or was written by an older version.
    """
    certificate = _read_certificate(directory)
    return Keys(
        ids=_read_ids(directory),
        alipay_merchant=_encode_pair(_read_private_key(directory, "alipay-merchant")),
        alipay_platform=_encode_pair(_read_private_key(directory, "alipay-platform")),
        wechatpay_merchant=_encode_pair(_read_private_key(directory, "wechatpay-merchant")),
        wechatpay_platform=_encode_pair(_read_private_key(directory, "wechatpay-platform")),
        wechatpay_platform_certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        wechatpay_platform_serial=f"{certificate.serial_number:X}",
    )


def _read_ids(directory: Path) -> MerchantIds:
    file = directory / _IDS_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=MerchantIds)
    except msgspec.MsgspecError as error:
        raise ValueError(
            f"cannot read {file}: {error}; it may be of an older version: delete {directory}, whose files are "
            "generated again"
        ) from None


def _generate_ids() -> MerchantIds:
    def random_digits(count: int) -> str:
        return "".join(secrets.choice("0123456789") for _ in range(count))

    return MerchantIds(
        alipay_app_id=f"2021{random_digits(12)}",
        alipay_seller_id=f"2088{random_digits(12)}",
        wechatpay_app_id=f"wx{secrets.token_hex(8)}",
        wechatpay_mch_id=f"19{random_digits(8)}",
        wechatpay_merchant_serial=f"{x509.random_serial_number():X}",
        wechatpay_api_v3_key=secrets.token_hex(16),
        sf_express_partner_id=f"FG{secrets.token_hex(4).upper()}",
        sf_express_check_word=secrets.token_hex(16),
        sf_express_monthly_card=random_digits(10),
        sf_express_webhook_key=secrets.token_urlsafe(24),
        kuaidi100_customer=secrets.token_hex(16).upper(),
        kuaidi100_key=secrets.token_hex(6),
        kuaidi100_salt=secrets.token_hex(16),
    )


def _encode_pair(key: rsa.RSAPrivateKey) -> KeyPair:
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private.decode(), public.decode())


def _read_private_key(directory: Path, name: str) -> rsa.RSAPrivateKey:
    file = directory / f"{name}.pem"
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except ValueError:
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"cannot use {file}: it holds no RSA key; delete it, and a new key is generated")
    return key


def _read_certificate(directory: Path) -> x509.Certificate:
    file = directory / _CERTIFICATE_FILE
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError:
        raise ValueError(f"cannot use {file}: it holds no certificate; delete it, and a new one is generated") from None
