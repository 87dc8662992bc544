"""WeChat Pay's signatures and encryption.

Requests are signed by the merchant (https://pay.weixin.qq.com/doc/v3/merchant/4012365342), answers and callbacks by
WeChat Pay (https://pay.weixin.qq.com/wiki/doc/apiv3/wechatpay/wechatpay4_1.shtml), both SHA256-RSA with PKCS #1 v1.5.
Callbacks and certificates carry a part that is encrypted with the APIv3 key, AEAD_AES_256_GCM
(https://pay.weixin.qq.com/wiki/doc/apiv3_partner/wechatpay/wechatpay4_2.shtml).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from commerce.kernel.clock import EPOCH
from commerce.kernel.external import InvalidWebhook
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount

SCHEME = "WECHATPAY2-SHA256-RSA2048"
CIPHER = "AEAD_AES_256_GCM"
WINDOW_S = 300
"""How far a timestamp may be from our clock, in seconds, either way."""
PROBE_PREFIX = "WECHATPAY/SIGNTEST/"
"""WeChat Pay now and then sends a wrong signature that begins so, to see whether a merchant looks."""
SIGNATURE_HEADERS = ("wechatpay-timestamp", "wechatpay-nonce", "wechatpay-signature", "wechatpay-serial")


class PlatformKey(NamedTuple):
    """A key that WeChat Pay signs with, and when its certificate holds; a plain public key has no such limits."""

    key: RSAPublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None

    def holds(self, now: datetime) -> bool:
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now <= self.not_after)


def message(*lines: str | bytes) -> bytes:
    """What is signed, of requests, answers, callbacks and parameters alike: each part ends with a line feed."""
    return b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)


def sign(key: RSAPrivateKey, signed: bytes) -> str:
    """SHA256-RSA in base64."""
    return b64encode(key.sign(signed, PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, signed: bytes, signature: str) -> bool:
    """Whether `signature` is that of `signed`, in the one base64 form that there is of it."""
    try:
        raw = b64decode(signature, validate=True)
    except ValueError:
        return False
    if b64encode(raw).decode() != signature:
        return False
    try:
        key.verify(raw, signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def authorization(account: WeChatPayAccount, method: str, path: str, body: bytes, *, now: datetime, nonce: str) -> str:
    """The Authorization header of a request. `path` begins with /v3 and has the query; `body` is b"" for GET."""
    timestamp = _seconds(now)
    signature = sign(account.private_key, message(method, path, timestamp, nonce, body))
    return (
        f'{SCHEME} mchid="{account.mch_id}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{account.serial}"'
    )


def jsapi_parameters(account: WeChatPayAccount, prepay_id: str, *, now: datetime, nonce: str) -> dict[str, str]:
    """What a page in WeChat hands to `WeixinJSBridge` (https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter5_1_8.shtml)."""
    timestamp, package = _seconds(now), f"prepay_id={prepay_id}"
    return {
        "appId": account.app_id,
        "timeStamp": timestamp,
        "nonceStr": nonce,
        "package": package,
        "signType": "RSA",
        "paySign": sign(account.private_key, message(account.app_id, timestamp, nonce, package)),
    }


def verify(headers: Mapping[str, str], body: bytes, keys: Mapping[str, PlatformKey], now: datetime) -> None:
    """Check WeChat Pay's signature on an answer or a callback; names of headers are in lower case.

    Raises `BadNotice`: malformed, stale, unknown_key or bad_signature.
    """
    timestamp, nonce, signature, serial = (headers.get(name, "") for name in SIGNATURE_HEADERS)
    if not (timestamp and nonce and signature and serial):
        missing = next(name for name in SIGNATURE_HEADERS if not headers.get(name))
        raise InvalidWebhook("malformed", f"there is no header {missing}")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise InvalidWebhook("malformed", "the timestamp is not a number of seconds")
    if not re.fullmatch(r"[!-~]{1,256}", nonce):
        raise InvalidWebhook("malformed", "the nonce is not plain ASCII")
    if abs((now - EPOCH).total_seconds() - int(timestamp)) > WINDOW_S:
        raise InvalidWebhook("stale", f"the timestamp is more than {WINDOW_S} seconds from our clock")
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        raise InvalidWebhook("bad_signature", "the signature is of an unknown type")
    if signature.startswith(PROBE_PREFIX):
        raise InvalidWebhook("bad_signature", "WeChat Pay probes whether signatures are verified")
    known = keys.get(serial)
    if known is None or not known.holds(now):
        raise InvalidWebhook("unknown_key", f"there is no valid key of serial number {serial[:80]!r}")
    if not is_signed(known.key, message(timestamp, nonce, body), signature):
        raise InvalidWebhook("bad_signature", "the signature is not WeChat Pay's")


def decrypt(key: bytes, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """The clear content of a resource. Raises `ValueError`."""
    try:
        return AESGCM(key).decrypt(nonce.encode(), b64decode(ciphertext, validate=True), associated_data.encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise ValueError("the content does not decrypt with the APIv3 key") from None


def read_certificate(pem: bytes, serial: str) -> PlatformKey:
    """A platform certificate. Raises `ValueError` if it is none, or not the one of that serial number."""
    certificate = load_pem_x509_certificate(pem)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the platform certificate has no RSA key")
    if certificate.serial_number != int(serial, 16):
        raise ValueError("the platform certificate has another serial number than was said")
    return PlatformKey(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _seconds(moment: datetime) -> str:
    return str(int((moment - EPOCH).total_seconds()))
