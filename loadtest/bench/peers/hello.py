"""aiohttp's own hello-world: one handler, no access log, uvloop: `python -m … PORT`."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def answer_hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello, world")


def main() -> None:
    """Serve until killed."""
    uvloop.install()
    app = web.Application()
    app.router.add_get("/", answer_hello)
    app.router.add_post("/v1/orders", answer_hello)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
