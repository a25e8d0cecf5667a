"""What all tests share: the suites' own assertions are told as a test's are."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("ropeway.testing.bench", "ropeway.testing.conformance")
