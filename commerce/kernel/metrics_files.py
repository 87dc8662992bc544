"""Metrics files: a process keeps its values in memory and writes them; a scrape reads all files.

prometheus_client maps sparse files into memory. A page that finds no block on a full disk then ends the process with
SIGBUS, and so does a file that somebody cuts. A write that fails is only an error. The format is prometheus_client's.
Import this module before the first metric is created.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from prometheus_client import multiprocess, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

_logger = logging.getLogger(__name__)
_WRITE_INTERVAL_S = 1.0
_INITIAL_BYTES = 65_536
_MAX_FILE_BYTES = 67_108_864
_MAX_KEYS_CACHED = 50_000
_HEADER_BYTES, _NUMBERS_BYTES = 8, 16
_FILE_NAME = re.compile(r"(counter|histogram|summary|gauge_(?:live)?(?:all|min|max|sum|mostrecent))_(\d{1,10})\.db")
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class BufferedMetricsFile(MmapedDict):
    """The values of one metrics file, in memory; `write` brings the file up to date.

    An existing file is of an earlier process with the same id: its counters go on.
    """

    _m: Any  # a bytearray, in place of the parent's mmap

    def __init__(self, filename: str) -> None:
        self._path = Path(filename)
        self._m = _read_earlier(self._path)
        self._capacity = len(self._m)
        self._used = int.from_bytes(self._m[:4], sys.byteorder)
        self._positions = {key: position for key, _, _, position in self._read_all_values()}  # type: ignore[no-untyped-call]
        self._written = b""
        _writer.files.append(self)

    def _init_value(self, key: str) -> None:
        while self._used + len(key.encode()) + 2 * _NUMBERS_BYTES > self._capacity:
            self._m.extend(bytes(self._capacity))
            self._capacity = len(self._m)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def write(self) -> None:
        """Write the values if they have changed. Raises `OSError`; the file is sound then, and older.

        The file is written in place and with all its bytes: its blocks are its own from the first write on, so a disk
        that is full later stops no update. The header comes last: until then, new entries do not count.
        """
        content = bytes(self._m)  # one step, so no other thread changes it meanwhile
        if content == self._written and self._path.exists():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            file.seek(_HEADER_BYTES)
            file.write(content[_HEADER_BYTES:])
            file.flush()
            file.seek(0)
            file.write(content[:_HEADER_BYTES])
        self._written = content

    def close(self) -> None:
        _writer.files.remove(self)


def _read_earlier(path: Path) -> bytearray:
    """Read the content of a file that goes on; a broken or missing one begins empty."""
    content = struct.pack("ii", _HEADER_BYTES, 0)
    try:
        if read_values(path):
            content = path.read_bytes()
    except (OSError, ValueError):
        pass
    return bytearray(content.ljust(_INITIAL_BYTES, b"\0"))


class _Writer:
    """Writes the files of this process. What cannot be written stays in memory until it can."""

    def __init__(self) -> None:
        self.files: list[BufferedMetricsFile] = []
        self._lock = threading.Lock()
        self._is_failing = False

    def write(self) -> None:
        """Write all files, and log when that begins to fail or succeeds again."""
        with self._lock:
            try:
                for file in list(self.files):
                    file.write()
            except OSError as error:
                if not self._is_failing:
                    _logger.warning("cannot write metrics: they stay in memory", extra={"reason": str(error)})
                self._is_failing = True
            else:
                if self._is_failing:
                    _logger.warning("metrics are written again")
                self._is_failing = False

    def write_forever(self) -> None:
        never = threading.Event()
        while not never.wait(_WRITE_INTERVAL_S):
            self.write()


_writer = _Writer()
write_files = _writer.write


def write_files_forever() -> None:
    """Write this process's values once a second, in a thread that a slow disk may block, and at its end."""
    prometheus_values: Any = values
    prometheus_values.MmapedDict = BufferedMetricsFile
    atexit.register(write_files)
    threading.Thread(target=_writer.write_forever, name="metrics", daemon=True).start()


class _Key(NamedTuple):
    """The metric, the sample and the labels of a value."""

    metric: str
    sample: str
    labels: tuple[tuple[str, str], ...]
    help: str


@lru_cache(_MAX_KEYS_CACHED)
def _parse_key(text: bytes) -> _Key:
    """Parse a value's key. Raises `ValueError` if it is not one of a metric."""
    try:
        key = json.loads(text)
        json.dumps(key, ensure_ascii=False).encode()  # a half of a surrogate pair would fail the whole answer
    except RecursionError:
        raise ValueError("an entry is nested too deeply") from None
    match key:
        case [str(metric), str(sample), dict(labels), str(description)] if (
            _METRIC_NAME.fullmatch(metric)
            and _METRIC_NAME.fullmatch(sample)
            and all(_METRIC_NAME.fullmatch(name) and isinstance(value, str) for name, value in labels.items())
        ):
            float(labels.get("le", 0))
            return _Key(metric, sample, tuple(sorted(labels.items())), description)
    raise ValueError("an entry names no metric")


def read_values(path: Path) -> list[tuple[_Key, float, float]]:
    """Read a file's keys, values and timestamps.

    Raises `OSError`, or `ValueError` if it is no metrics file.
    """
    if not _FILE_NAME.fullmatch(path.name):
        raise ValueError("its name is not that of a metrics file")
    with path.open("rb") as file:
        data = file.read(_MAX_FILE_BYTES + 1)
    used = int.from_bytes(data[:4], sys.byteorder, signed=True)
    if used == 0 and len(data) <= _MAX_FILE_BYTES:  # its process has just created it
        return []
    if not _HEADER_BYTES <= used <= len(data) or len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"it has {len(data)} bytes and claims to use {used}")
    entries, position = [], _HEADER_BYTES
    while position < used:
        length = int.from_bytes(data[position : position + 4], sys.byteorder, signed=True)
        start, end = position + 4, position + 4 + length + 8 - (length + 4) % 8
        if length <= 0 or end + _NUMBERS_BYTES > used:
            raise ValueError(f"the entry at byte {position} is cut")
        value, timestamp = struct.unpack_from("dd", data, end)
        entries.append((_parse_key(data[start : start + length]), value, timestamp))
        position = end + _NUMBERS_BYTES
    return entries


class MetricsFilesCollector(Collector):
    """Collects the metrics of all files of a directory, added up over the processes.

    A file that cannot be read is skipped, counted, and logged the first time.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, and the number of skipped files."""
        metrics: dict[str, Metric] = {}
        skipped = 0
        for path in sorted(self._directory.glob("*.db")):
            try:
                self._add(metrics, path, read_values(path))
            except FileNotFoundError:  # of a process that has just ended
                continue
            except (OSError, ValueError) as error:
                skipped += 1
                _log_skipped(str(path), str(error))
        accumulate: Any = multiprocess.MultiProcessCollector._accumulate_metrics
        yield from cast(Iterable[Metric], accumulate(metrics, accumulate=True))
        yield GaugeMetricFamily(
            "floodgate_skipped_metrics_files", "Broken or foreign files in the metrics directory", skipped
        )

    def _add(self, metrics: dict[str, Metric], path: Path, entries: list[tuple[_Key, float, float]]) -> None:
        kind, _, pid = path.stem.rpartition("_")
        kind, _, mode = kind.partition("_")
        for key, value, timestamp in entries:
            metric: Any = metrics.get(key.metric)
            if metric is None:
                metric = metrics[key.metric] = Metric(key.metric, key.help, kind)
            if kind == "gauge":
                metric._multiprocess_mode = mode
                metric.add_sample(key.sample, (*key.labels, ("pid", pid)), value, timestamp)
            else:
                metric.add_sample(key.sample, key.labels, value)


@lru_cache(_MAX_KEYS_CACHED)
def _log_skipped(path: str, reason: str) -> None:
    """Log a skipped file; the cache remembers which were logged."""
    _logger.warning("skipped a metrics file: delete it, or fix its rights", extra={"file": path, "reason": reason})
