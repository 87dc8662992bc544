"""The process that decodes one picture.

It reads the file from standard input and writes a `RenderReply`. It limits its own memory, CPU time and files before
it reads anything, so a picture that is made to hurt hurts only it. No other module imports this one.
"""

from __future__ import annotations

import resource
import sys

import msgspec

from commerce.kernel.errors import NotAPicture
from commerce.kernel.pictures import render_sizes
from commerce.pictures.model import SIZES, Rendered, RenderReply


def main(max_pixels: int, memory_bytes: int, cpu_s: int) -> None:
    """Render the picture on standard input."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),  # it writes no file
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    try:
        pictures = render_sizes(sys.stdin.buffer.read(), max_pixels, SIZES)
    except NotAPicture as error:
        reply = RenderReply(refused=error.detail, reason=error.reason)
    else:
        reply = RenderReply([Rendered(size, *picture) for size, picture in zip(SIZES, pictures, strict=True)])
    sys.stdout.buffer.write(msgspec.msgpack.encode(reply))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
