"""Runs: one actor each, one order each, durable before visible. Knows neither agents nor sockets."""

from midstream.runs.attachment import Attachment, Place
from midstream.runs.contract import (
    Agents,
    BadDraft,
    CallCancelled,
    CallRecord,
    CorrectionRecord,
    CorrectionsPending,
    Limits,
    Offered,
    Principal,
    Program,
    ResultRecord,
    Rules,
    RunFailure,
    StartRecord,
    Stopping,
)
from midstream.runs.listing import Listed
from midstream.runs.port import Port
from midstream.runs.registry import Registry
from midstream.runs.state import Answer, CallState, CorrectionState
from midstream.runs.subscription import Subscription, SubscriptionLost, Watch

__all__ = [
    "Agents",
    "Answer",
    "Attachment",
    "BadDraft",
    "CallCancelled",
    "CallRecord",
    "CallState",
    "CorrectionRecord",
    "CorrectionState",
    "CorrectionsPending",
    "Limits",
    "Listed",
    "Offered",
    "Place",
    "Port",
    "Principal",
    "Program",
    "Registry",
    "ResultRecord",
    "Rules",
    "RunFailure",
    "StartRecord",
    "Stopping",
    "Subscription",
    "SubscriptionLost",
    "Watch",
]
