"""Slow tests that check the promises at full load; `make drill` runs them."""

import pytest

# Assertions in these modules show their values, as in test modules.
pytest.register_assert_rewrite("tests.drills.final_checks", "tests.drills.local_stack")
