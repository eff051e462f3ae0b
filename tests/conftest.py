from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Both measure seconds, of which a busy machine has more: what is slow shows in `--durations`, and fails nothing.
settings.register_profile("midstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("midstream")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test that sets up the server's logging leaves none of it to the next: it writes to a stream that is closed."""
    yield
    structlog.reset_defaults()
