"""The tokens of one model call, as an event. The run adds them up."""

from midstream.agents.providers.contract import TokenUsage
from midstream_protocol.events import ModelUsage, UsageUpdated


def used_by(used: TokenUsage, *, model: str) -> UsageUpdated:
    """What one call of `model` used, for `port.record`."""
    call = ModelUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_input_tokens=used.cached_input_tokens,
        total_tokens=used.input_tokens + used.output_tokens,
    )
    return UsageUpdated(
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cached_input_tokens=call.cached_input_tokens,
        total_tokens=call.total_tokens,
        by_model={model: call},
    )
