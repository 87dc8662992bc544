"""A process of many customers: `python -m loadtest.bench.crowd_process`, controlled by JSON lines.

The first line of standard input is `CrowdOptions`. Each further line is answered by a `CrowdSample` of what has
happened since the last. The crowd leaves when the input ends or the process is killed.

Plain epoll, because a customer must cost the machine less than the answer it gets: 10,000 customers of asyncio would be
the bottleneck. wrk is as fast, but neither tells accepted orders from refused ones in its times, nor waits as
`Retry-After` says.
"""

from __future__ import annotations

import errno
import gc
import heapq
import os
import re
import select
import socket
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

import msgspec

_CONNECTS_PER_STEP, _STEP_S = 100, 0.01
_MAX_PENDING_CONNECTS = 500  # fewer than a server's accept queue takes, or the kernel lets them wait for seconds
_RECONNECT_S = 0.1
_MAX_SAMPLES = 500_000
_READ_BYTES = 65_536
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3})(?s:.*?)\r\n\r\n")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_RETRY_AFTER = re.compile(rb"(?i)\r\nretry-after: *(\d+)")
_REFUSALS = (b"429", b"503")
_BIND_ADDRESS_NO_PORT = 24  # Linux: the kernel chooses the port when it knows the other address
_STDIN = 0


class CrowdOptions(msgspec.Struct, frozen=True):
    """Customers of one process. `users` has a header line per user, `order` an order as JSON.

    A patient customer waits as long as `Retry-After` says and repeats the same request. An impatient one sends its next
    at once. `pause_ms` is the mean pause after any other answer. Instead of new orders `requests` may hold prepared
    requests, a JSON list of texts, which are sent in turn: once each if `is_once`.

    With `rotates_users` each order is of the next user, whatever the connection; if `is_once`, each user orders once.
    `new_connection_share` is the share of answers after which a customer hangs up and connects again at once.
    """

    port: int
    connections: int
    users: str
    order: str
    run: str
    requests: str | None = None
    is_once: bool = False
    is_patient: bool = False
    pause_ms: float = 0
    sources: tuple[str, ...] = ("127.0.0.1",)
    users_per_connection: int = 1
    rotates_users: bool = False
    new_connection_share: float = 0
    first_user: int = 0
    niceness: int = 0
    keeps_answers: bool = False


class CrowdSample(msgspec.Struct, frozen=True):
    """Answers since the last sample, by status; `closed` counts connections that the server closed.

    `connected` is the number of open connections now.

    Times are of answers below 300, from the first byte sent to the last received: of the attempt that succeeded, and of
    all attempts together. `answers` has time, milliseconds and success of each answer, if they are kept.
    """

    seconds: float
    connected: int
    counts: dict[str, int]
    p50_ms: float
    p99_ms: float
    all_attempts_p99_ms: float
    answers: list[tuple[float, float, bool]]

    @property
    def accepted(self) -> int:
        return sum(number for status, number in self.counts.items() if status < "3")

    @property
    def refused(self) -> int:
        return sum(number for status, number in self.counts.items() if "4" <= status < "6")


class _Customer:
    """One connection, with the request that it sends or waits to repeat."""

    __slots__ = ("buffer", "first_sent_at", "number", "request", "sent_at", "socket", "timer")

    def __init__(self, number: int) -> None:
        self.number = number
        self.socket: socket.socket | None = None
        self.request: bytes | None = None
        self.sent_at = self.first_sent_at = 0.0
        self.buffer = b""
        self.timer = 0  # the number of its only timer that counts


class CrowdProcess:
    """All customers of the process, and the counts of their answers."""

    def __init__(self, options: CrowdOptions) -> None:
        self._options = options
        self._random = Random(options.run)  # noqa: S311  # nothing secret
        self._epoll = select.epoll()
        self._epoll.register(_STDIN, select.EPOLLIN)
        body = Path(options.order).read_bytes().replace(b"@", b"0")
        # Heads are built when they are sent: those of half a million strangers would take as many times 500 bytes.
        self._users = Path(options.users).read_bytes().splitlines()
        self._start = b"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._key = b"\r\nIdempotency-Key: %b-" % options.run.encode()
        self._tail = b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        self._prepared: list[bytes] = []
        if options.requests is not None:
            self._prepared = [
                text.encode() for text in msgspec.json.decode(Path(options.requests).read_bytes(), type=list[str])
            ]
        self._by_file: dict[int, _Customer] = {}
        self._to_connect = [_Customer(number) for number in reversed(range(options.connections))]
        self._pending: set[_Customer] = set()
        self._next_step_at = 0.0
        self._timers: list[tuple[float, int, _Customer]] = []
        self._timer_numbers, self._request_numbers = count(1), count()
        self._counts: Counter[str] = Counter()
        self._times: list[float] = []
        self._all_attempts: list[float] = []
        self._answers: list[tuple[float, float, bool]] = []
        self._sampled_at = monotonic()

    def run(self) -> None:
        """Serve until the input ends."""
        epoll = self._epoll
        while True:
            now = monotonic()
            self._connect_more(now)
            self._run_timers(now)
            for file, event in epoll.poll(self._find_timeout(now)):
                if file == _STDIN:
                    if not os.read(_STDIN, _READ_BYTES):
                        return
                    sys.stdout.buffer.write(msgspec.json.encode(self._take_sample()) + b"\n")
                    sys.stdout.buffer.flush()
                    continue
                customer = self._by_file[file]
                if event & select.EPOLLIN:
                    self._read(file, customer)
                elif event & select.EPOLLOUT and customer in self._pending:
                    self._finish_connect(file, customer)
                else:
                    self._close(file, customer, "closed")

    def _find_timeout(self, now: float) -> float | None:
        due = [self._timers[0][0]] if self._timers else []
        if self._to_connect:
            due.append(self._next_step_at)
        return max(0.0, min(due) - now) if due else None

    # Connections.

    def _connect_more(self, now: float) -> None:
        if not self._to_connect or now < self._next_step_at:
            return
        self._next_step_at = now + _STEP_S
        for _ in range(min(_CONNECTS_PER_STEP, len(self._to_connect), _MAX_PENDING_CONNECTS - len(self._pending))):
            self._connect(self._to_connect.pop())

    def _connect(self, customer: _Customer) -> None:
        sources = self._options.sources
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        connection.bind((sources[customer.number % len(sources)], 0))
        result = connection.connect_ex(("127.0.0.1", self._options.port))
        customer.socket, customer.buffer = connection, b""
        self._by_file[connection.fileno()] = customer
        self._epoll.register(connection.fileno(), select.EPOLLOUT)
        self._pending.add(customer)
        if result not in (0, errno.EINPROGRESS):
            self._close(connection.fileno(), customer, "failed")

    def _finish_connect(self, file: int, customer: _Customer) -> None:
        assert customer.socket is not None
        if customer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close(file, customer, "failed")
            return
        self._pending.discard(customer)
        self._epoll.modify(file, select.EPOLLIN)
        self._send(customer)

    def _close(self, file: int, customer: _Customer, reason: str) -> None:
        self._counts[reason] += 1
        self._pending.discard(customer)
        self._hang_up(file, customer)
        self._set_timer(customer, monotonic() + _RECONNECT_S)

    def _hang_up(self, file: int, customer: _Customer) -> None:
        self._epoll.unregister(file)
        del self._by_file[file]
        assert customer.socket is not None
        customer.socket.close()
        customer.socket = None

    def _set_timer(self, customer: _Customer, due: float) -> None:
        customer.timer = next(self._timer_numbers)
        heapq.heappush(self._timers, (due, customer.timer, customer))

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, number, customer = heapq.heappop(self._timers)
            if number != customer.timer:
                continue
            if customer.socket is None:
                self._to_connect.append(customer)
            else:
                self._send(customer)

    # Requests and answers.

    def _send(self, customer: _Customer) -> None:
        """Send the customer's request, a new one unless it repeats one."""
        request, now = customer.request, monotonic()
        if request is None:
            options, number = self._options, next(self._request_numbers)
            if options.is_once and number >= len(self._prepared or self._users):
                return
            if self._prepared:
                request = self._prepared[number % len(self._prepared)]
            else:
                per_connection = options.users_per_connection
                user = options.first_user + customer.number * per_connection + number % per_connection
                header = self._users[(number if options.rotates_users else user) % len(self._users)]
                request = self._start + header + self._key + b"%d" % number + self._tail
            customer.request, customer.first_sent_at = request, now
        customer.sent_at = now
        assert customer.socket is not None
        file = customer.socket.fileno()
        try:
            if os.write(file, request) != len(request):
                self._close(file, customer, "failed")
        except OSError:
            self._close(file, customer, "closed")

    def _read(self, file: int, customer: _Customer) -> None:
        try:
            data = os.read(file, _READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._close(file, customer, "closed")
            return
        data = customer.buffer + data
        customer.buffer = b""
        if not data.endswith(b"}") or not data.startswith(b"HTTP/1.1 "):  # else it is whole: an object of JSON
            head = _HEAD.match(data)
            length = _LENGTH.search(data, 0, head.end()) if head else None
            if head is None or len(data) < head.end() + (int(length[1]) if length else 0):
                customer.buffer = data
                return
        self._take_answer(customer, data[9:12], data)

    def _take_answer(self, customer: _Customer, status: bytes, data: bytes) -> None:
        options, now = self._options, monotonic()
        self._counts[status.decode()] += 1
        is_success = status < b"3"
        elapsed_ms = (now - customer.sent_at) * 1e3
        if is_success and len(self._times) < _MAX_SAMPLES:
            self._times.append(elapsed_ms)
            self._all_attempts.append((now - customer.first_sent_at) * 1e3)
        if options.keeps_answers and len(self._answers) < _MAX_SAMPLES:
            self._answers.append((now, elapsed_ms, is_success))
        if options.is_patient and status in _REFUSALS:
            retry_after = _RETRY_AFTER.search(data)
            pause_s = float(retry_after[1]) * self._random.uniform(1, 1.5) if retry_after else 1.0
        else:
            customer.request = None
            pause_s = self._random.expovariate(1e3 / options.pause_ms) if options.pause_ms else 0.0
            if self._random.random() < options.new_connection_share:
                assert customer.socket is not None
                self._hang_up(customer.socket.fileno(), customer)
                self._connect(customer)
                return
        if pause_s:
            self._set_timer(customer, now + pause_s)
        else:
            self._send(customer)

    # Samples.

    def _take_sample(self) -> CrowdSample:
        now = monotonic()
        times, attempts = sorted(self._times), sorted(self._all_attempts)
        sample = CrowdSample(
            now - self._sampled_at,
            len(self._by_file) - len(self._pending),
            dict(self._counts),
            _find_percentile(times, 0.5),
            _find_percentile(times, 0.99),
            _find_percentile(attempts, 0.99),
            self._answers,
        )
        self._counts, self._times, self._all_attempts, self._answers = Counter(), [], [], []
        self._sampled_at = now
        return sample


def _find_percentile(sorted_values: list[float], share: float) -> float:
    """Return a percentile, 0 if there are no values."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))] if sorted_values else 0.0


def main() -> None:
    """Read the options and run the crowd."""
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: epoll must see whatever follows
        line += os.read(_STDIN, 1) or sys.exit(1)
    options = msgspec.json.decode(line, type=CrowdOptions)
    os.nice(options.niceness)
    crowd = CrowdProcess(options)
    gc.freeze()
    gc.disable()  # nothing here has cycles
    crowd.run()


if __name__ == "__main__":
    main()
