"""Slow tests that try to break the promises at full load; `make drill` runs them."""

import pytest

pytest.register_assert_rewrite("tests.drills.books", "tests.drills.house")  # so that a failure there shows values
