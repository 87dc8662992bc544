"""FastAPI on uvicorn with one EVALSHA per request, through redis-py with hiredis: `python -m … PORT`.

Tuned as for production: types checked by pydantic, uvloop, httptools, no access log. No token is checked.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import uuid
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, Request, Response
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from loadtest.bench.peers.script import ReserveCall

_LIMIT = 1_000_000


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: Annotated[int, Field(ge=1)]


class Order(BaseModel):
    """The members of an order that are used."""

    sale_id: str
    lines: Annotated[list[Line], Field(min_length=1, max_length=1)]
    ship_to: list[dict[str, str]]


class Placed(BaseModel):
    """Response to an accepted or refused order."""

    order_id: str
    status: str


app = FastAPI()
reserve = ReserveCall.from_environment()
redis = Redis(unix_socket_path=reserve.redis, max_connections=1_000)


@app.post("/v1/orders", status_code=202)
async def place(
    order: Order,
    request: Request,
    response: Response,
    x_user: Annotated[str, Header()],
    idempotency_key: Annotated[str, Header()],
) -> Placed:
    """Reserve the stock of an order."""
    body = await request.body()
    line, order_id = order.lines[0], uuid.uuid4()
    reply = await redis.evalsha(
        reserve.sha,
        len(reserve.keys),
        *reserve.keys,
        *(reserve.day, 1, 1, 1, struct.pack(">QIIIII", reserve.generation, 1, 1, line.quantity, 1, _LIMIT)),
        order_id.bytes + struct.pack(">I", len(body)) + body,
        *(line.sku, f"{x_user}\0{line.sku}", f"{x_user}\0{idempotency_key}", x_user),
        order_id.bytes + hashlib.md5(body, usedforsecurity=False).digest() + bytes(8),
    )
    if reply[2] != 0:
        response.status_code = 409
    return Placed(order_id=str(order_id), status="accepted" if reply[2] == 0 else "refused")


def main() -> None:
    """Serve until killed."""
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False)


if __name__ == "__main__":
    main()
