"""WeChat Pay's signatures and encryption.

Requests are signed by the merchant (https://pay.weixin.qq.com/doc/v3/merchant/4012365342), responses and webhooks by
WeChat Pay (https://pay.weixin.qq.com/wiki/doc/apiv3/wechatpay/wechatpay4_1.shtml), both SHA256-RSA with PKCS #1 v1.5.
Webhooks and certificates have a part that is encrypted with the APIv3 key, AEAD_AES_256_GCM
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
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate

from commerce.kernel.clock import EPOCH
from commerce.kernel.external import InvalidWebhook
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount

SCHEME = "WECHATPAY2-SHA256-RSA2048"
CIPHER = "AEAD_AES_256_GCM"
MAX_CLOCK_DIFFERENCE_S = 300
"""maximum seconds between a timestamp and our clock, either way"""
PROBE_PREFIX = "WECHATPAY/SIGNTEST/"
"""prefix of the wrong signatures that WeChat Pay sends at times to test if a merchant verifies them"""
SIGNATURE_HEADERS = ("wechatpay-timestamp", "wechatpay-nonce", "wechatpay-signature", "wechatpay-serial")


class PlatformKey(NamedTuple):
    """A key of WeChat Pay and when its certificate is valid; a plain public key has no limits."""

    key: RSAPublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None

    def is_valid_at(self, now: datetime) -> bool:
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now <= self.not_after)


def signing_text(*lines: str | bytes) -> bytes:
    """Return the bytes to sign of a request, response, webhook or parameters.

    Each part ends with a line feed."""
    return b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)


def sign(key: RSAPrivateKey, signed: bytes) -> str:
    """Sign with SHA256-RSA, in base64."""
    return b64encode(key.sign(signed, PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, signed: bytes, signature: str) -> bool:
    """Tell if `signature` is that of `signed`, in its canonical base64 form."""
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


def build_authorization(
    account: WeChatPayAccount, method: str, path: str, body: bytes, *, now: datetime, nonce: str
) -> str:
    """Return the Authorization header of a request.

    `path` begins with /v3 and includes the query; `body` is b"" for GET."""
    timestamp = _format_seconds(now)
    signature = sign(account.private_key, signing_text(method, path, timestamp, nonce, body))
    return (
        f'{SCHEME} mchid="{account.mch_id}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{account.serial}"'
    )


def sign_jsapi_parameters(account: WeChatPayAccount, prepay_id: str, *, now: datetime, nonce: str) -> dict[str, str]:
    """Return what a page in WeChat passes to `WeixinJSBridge`.

    https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter5_1_8.shtml"""
    timestamp, package = _format_seconds(now), f"prepay_id={prepay_id}"
    return {
        "appId": account.app_id,
        "timeStamp": timestamp,
        "nonceStr": nonce,
        "package": package,
        "signType": "RSA",
        "paySign": sign(account.private_key, signing_text(account.app_id, timestamp, nonce, package)),
    }


def sign_app_parameters(account: WeChatPayAccount, prepay_id: str, *, now: datetime, nonce: str) -> dict[str, str]:
    """Return what an app passes to WeChat's SDK (`PayReq`).

    The prepay_id is signed without its name. https://pay.weixin.qq.com/doc/v3/merchant/4013070351"""
    timestamp = _format_seconds(now)
    return {
        "appid": account.app_id,
        "partnerid": account.mch_id,
        "prepayid": prepay_id,
        "package": "Sign=WXPay",
        "noncestr": nonce,
        "timestamp": timestamp,
        "sign": sign(account.private_key, signing_text(account.app_id, timestamp, nonce, prepay_id)),
    }


def verify_signature(headers: Mapping[str, str], body: bytes, keys: Mapping[str, PlatformKey], now: datetime) -> None:
    """Verify WeChat Pay's signature of a response or a webhook; header names are in lower case.

    Raises `InvalidWebhook` (malformed, stale, unknown_key, bad_signature)."""
    timestamp, nonce, signature, serial = (headers.get(name, "") for name in SIGNATURE_HEADERS)
    if not (timestamp and nonce and signature and serial):
        missing = next(name for name in SIGNATURE_HEADERS if not headers.get(name))
        raise InvalidWebhook("malformed", f"there is no header {missing}")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise InvalidWebhook("malformed", "the timestamp is not a number of seconds")
    if not re.fullmatch(r"[!-~]{1,256}", nonce):
        raise InvalidWebhook("malformed", "the nonce is not plain ASCII")
    if abs((now - EPOCH).total_seconds() - int(timestamp)) > MAX_CLOCK_DIFFERENCE_S:
        raise InvalidWebhook("stale", f"the timestamp is more than {MAX_CLOCK_DIFFERENCE_S} seconds from our clock")
    if headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        raise InvalidWebhook("bad_signature", "the signature is of an unknown type")
    if signature.startswith(PROBE_PREFIX):
        raise InvalidWebhook("bad_signature", "WeChat Pay tests if signatures are verified")
    key = keys.get(serial)
    if key is None or not key.is_valid_at(now):
        raise InvalidWebhook("unknown_key", f"there is no valid key of serial number {serial[:80]!r}")
    if not is_signed(key.key, signing_text(timestamp, nonce, body), signature):
        raise InvalidWebhook("bad_signature", "the signature is not WeChat Pay's")


def encrypt_for(key: RSAPublicKey, text: str) -> str:
    """Encrypt a short text so that only the owner of the key reads it (RSAES-OAEP with SHA-1), in base64.

    https://pay.weixin.qq.com/doc/v3/merchant/4013053257"""
    padding = OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)  # noqa: S303  # as the protocol says
    return b64encode(key.encrypt(text.encode(), padding)).decode()


def decrypt(key: bytes, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """Decrypt the content of a resource. Raises `ValueError`."""
    try:
        return AESGCM(key).decrypt(nonce.encode(), b64decode(ciphertext, validate=True), associated_data.encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise ValueError("the content does not decrypt with the APIv3 key") from None


def read_certificate(pem: bytes, serial: str) -> PlatformKey:
    """Read a platform certificate. Raises `ValueError` if it is none, or has another serial number."""
    certificate = load_pem_x509_certificate(pem)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the platform certificate has no RSA key")
    if certificate.serial_number != int(serial, 16):
        raise ValueError("the platform certificate has another serial number than its entry")
    return PlatformKey(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _format_seconds(moment: datetime) -> str:
    return str(int((moment - EPOCH).total_seconds()))
