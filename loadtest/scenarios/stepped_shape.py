"""Load shape of users that rise in steps: it shows at how many a shop becomes slow or refuses."""

from __future__ import annotations

import math
from argparse import Namespace

from locust import LoadTestShape

from loadtest.set_up import SetUpFault


class SteppedShape(LoadTestShape):
    """Adds `--step-users` every `--step-s` up to `--users`, until `--run-time` is over.

    Without `--run-time` the run ends one step after the maximum is reached.
    """

    def __init__(self, options: Namespace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._step_users, self._step_s = options.step_users, options.step_s
        self._max_users = options.num_users or 0
        self._duration_s = options.run_time or math.ceil(self._max_users / self._step_users) * self._step_s
        self._users_per_s = options.spawn_rate or float(self._step_users)

    def tick(self) -> tuple[int, float] | None:
        """Return the users and how many start per second, or None at the end. locust asks once per second."""
        elapsed_s = self.get_run_time()  # type: ignore[no-untyped-call]
        if elapsed_s >= self._duration_s:
            return None
        steps = int(elapsed_s / self._step_s) + 1
        return min(self._max_users, steps * self._step_users), self._users_per_s


def check_steps(options: Namespace) -> None:
    """Raise `SetUpFault` if the users of the options do not rise."""
    max_users = options.num_users or 0
    if options.step_users and max_users < options.step_users:
        raise SetUpFault(f"users cannot rise by {options.step_users} to {max_users}; give the maximum: --users")
