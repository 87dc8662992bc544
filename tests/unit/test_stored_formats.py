"""Bytes that running systems share stay as they are: the stream payload and the names of Redis keys."""

from __future__ import annotations

from uuid import UUID

from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, decode_accepted, encode_accepted
from lua import SaleKeys

ORDER = AcceptedOrder(
    order_id=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    user_id="user-1",
    idempotency_key="key-1",
    body_digest=bytes(range(16)),
    sale_id="golden",
    generation=7,
    currency="CNY",
    total_minor=1997,
    pay_within_s=900,
    ship_to='[{"name":"Li Lei","phone":"+86 138 0000 0000","country":"CN","city":"Shanghai","line":"1 Nanjing Rd"}]',
    payments='[{"method":"alipay","amount":1500},{"method":"balance","amount":497}]',
    lines=[AcceptedLine(0, 0, "A", 1, 499), AcceptedLine(0, 1, "A", 2, 499), AcceptedLine(1, 0, "B", 1, 500)],
)
PAYLOAD_OF_EARLIER_VERSIONS = bytes.fromhex(
    "9dc41001890a5dac96774bbcceb302099a8057a6757365722d31a56b65792d31"
    "c410000102030405060708090a0b0c0d0e0fa6676f6c64656e07a3434e59cd07"
    "cdcd0384d9665b7b226e616d65223a224c69204c6569222c2270686f6e65223a"
    "222b38362031333820303030302030303030222c22636f756e747279223a2243"
    "4e222c2263697479223a225368616e67686169222c226c696e65223a2231204e"
    "616e6a696e67205264227d5dd9455b7b226d6574686f64223a22616c69706179"
    "222c22616d6f756e74223a313530307d2c7b226d6574686f64223a2262616c61"
    "6e6365222c22616d6f756e74223a3439377d5d93950000a14101cd01f3950001"
    "a14102cd01f3950100a14201cd01f4a0"
)
PAYLOAD = bytes.fromhex(
    "9ec41001890a5dac96774bbcceb302099a8057a6757365722d31a56b65792d31"
    "c410000102030405060708090a0b0c0d0e0fa6676f6c64656e07a3434e59cd07"
    "cdcd0384d9665b7b226e616d65223a224c69204c6569222c2270686f6e65223a"
    "222b38362031333820303030302030303030222c22636f756e747279223a2243"
    "4e222c2263697479223a225368616e67686169222c226c696e65223a2231204e"
    "616e6a696e67205264227d5dd9455b7b226d6574686f64223a22616c69706179"
    "222c22616d6f756e74223a313530307d2c7b226d6574686f64223a2262616c61"
    "6e6365222c22616d6f756e74223a3439377d5d93970000a14101cd01f3c00097"
    "0001a14102cd01f3c000970100a14201cd01f4c000a0c0"
)


def test_stream_payload_of_an_order_keeps_its_bytes() -> None:
    assert encode_accepted(ORDER) == PAYLOAD
    assert decode_accepted(PAYLOAD) == decode_accepted(PAYLOAD_OF_EARLIER_VERSIONS) == ORDER


def test_redis_keys_of_a_sale_keep_their_names() -> None:
    keys = SaleKeys("s")
    names = [keys.meta, keys.stock, keys.buyers, keys.accepted, keys.orders, keys.fence]
    names += [keys.keys(20000), keys.changes(20000), keys.staged(3, "stock")]
    parts = ["meta", "stock", "buyers", "accepted", "orders", "fence", "keys:20000", "changes:20000", "staged:3:stock"]
    assert names == [f"{{sale:s}}:{part}".encode() for part in parts]
