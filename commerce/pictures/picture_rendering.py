"""Renders pictures, each in a process of its own, which can be killed at any time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec

from commerce.kernel.errors import NotAPicture
from commerce.kernel.optional import require_extra
from commerce.kernel.picture_containers import check_container
from commerce.pictures.model import Rendered, RenderReply
from commerce.pictures.picture_policy import PicturePolicy

_INHERITED_VARIABLES = ("PATH", "LANG", "PYTHONPATH", "SYSTEMROOT", "VIRTUAL_ENV")
_TOO_COSTLY = "cannot store the picture: decoding it needs too much time or memory; send a smaller one"
_KILLED = {-signal.SIGKILL, -signal.SIGXCPU}
_CRASHED = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}


async def render(content: bytes, policy: PicturePolicy) -> list[Rendered]:
    """Check a file and render it in all sizes.

    Raises `NotAPicture`, and `NotReady` if Pillow is not installed. The process gets no settings, so no secret
    either, and `policy.render_cpu_s` of CPU time. It is killed after `policy.render_timeout_s`, and when this call is
    cancelled. Raises `RuntimeError` if it fails for another reason, such as a busy machine."""
    require_extra("store pictures", "aftersales", "PIL")
    await asyncio.to_thread(check_container, content, policy.max_pixels)
    limits = (policy.max_pixels, policy.render_memory_bytes, policy.render_cpu_s)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commerce.pictures.render_process", *map(str, limits)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ},
    )
    try:
        async with asyncio.timeout(policy.render_timeout_s):
            output, _ = await process.communicate(content)
    except TimeoutError:
        raise RuntimeError(
            f"a picture was not rendered within {policy.render_timeout_s:g} s: the machine is busy"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return _read_reply(output, process.returncode)


def _read_reply(output: bytes, status: int | None) -> list[Rendered]:
    if status in _KILLED:
        raise NotAPicture(_TOO_COSTLY, "too_costly")
    if status in _CRASHED:
        raise NotAPicture("cannot store the picture: it cannot be decoded; send another file", "unreadable")
    if status != 0:
        raise RuntimeError(f"the process that renders pictures ended with status {status}; see its standard error")
    reply = msgspec.msgpack.decode(output, type=RenderReply)
    if reply.refused:
        raise NotAPicture(reply.refused, reply.reason)
    return reply.pictures
