from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test that sets up the server's logging leaves none of it to the next: it writes to a stream that is closed."""
    yield
    structlog.reset_defaults()
