"""Files of `--csv` that hold the end of a run."""

from __future__ import annotations

import time

from locust.env import Environment
from locust.stats import StatsCSVFileWriter


class CompleteCsvWriter(StatsCSVFileWriter):
    """Writes all rows once more when the run ends.

    locust's own writer does it each second only: of a run that ends within the first, it leaves no row, and of any
    other the rows lack the last moments.
    """

    def __init__(
        self,
        environment: Environment,
        percentiles_to_report: list[float],
        base_filepath: str,
        full_history: bool = False,
    ) -> None:
        super().__init__(environment, percentiles_to_report, base_filepath, full_history)
        # Not when the files are closed: by then `--json-file` has emptied the statistics.
        environment.events.quitting.add_listener(self._write_last_rows)  # type: ignore[no-untyped-call]

    def _write_last_rows(self, **_: object) -> None:
        for file, write, writer in (
            (self.requests_csv_filehandle, self.requests_csv, self.requests_csv_writer),
            (self.failures_csv_filehandle, self.failures_csv, self.failures_csv_writer),
            (self.exceptions_csv_filehandle, self.exceptions_csv, self.exceptions_csv_writer),
        ):
            file.seek(0)
            file.truncate()
            write(writer)
        self._stats_history_data_rows(self.stats_history_csv_writer, time.time())
