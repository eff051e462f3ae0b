"""Counting a run's tokens: what the log has, and one model call more."""

from midstream.agents.providers.contract import TokenUsage
from midstream_protocol.events import ModelUsage, Usage, UsageUpdated


def add_usage(before: Usage, used: TokenUsage, *, model: str) -> UsageUpdated:
    """The cumulative usage after one more call of `model`."""
    call = ModelUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_input_tokens=used.cached_input_tokens,
        total_tokens=used.input_tokens + used.output_tokens,
    )
    known = before.by_model.get(model)
    total = _sum(before, call)
    return UsageUpdated(
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cached_input_tokens=total.cached_input_tokens,
        total_tokens=total.total_tokens,
        by_model={**before.by_model, model: call if known is None else _sum(known, call)},
    )


def _sum(a: ModelUsage, b: ModelUsage) -> ModelUsage:
    return ModelUsage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
        cached_input_tokens=a.cached_input_tokens + b.cached_input_tokens,
        total_tokens=a.total_tokens + b.total_tokens,
    )
