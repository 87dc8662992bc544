"""Slow tests that try to break the promises at full load; `make drill` runs them."""

import pytest

# So that a failure there shows values.
pytest.register_assert_rewrite("tests.drills.final_checks", "tests.drills.local_stack")
