"""A research desk: it plans, looks things up in a folder of documents, calculates, and writes the answer."""

import re
from typing import Final

from msgspec import Struct

from examples.research_desk.library import Library, calculate, list_documents, read_document, search_documents
from midstream import Agent, Allow, Midstream, Planning, Request, StageResult, Stop, validated

HOUSE: Final = "You work for the research desk of the town of Tarnwick. Everything you know is in its documents."


class Row(Struct, frozen=True):
    name: str
    value: float
    unit: str


class Figures(Struct, frozen=True):
    """What the analysis comes to: numbers with their names, and one sentence that says what they show."""

    rows: list[Row]
    shows: str


async def no_personal_data(request: Request) -> Allow | Stop:
    """A guardrail that is a function: quick, without a model."""
    if re.search(r"\S+@\S+\.\S+|\+?\d[\d /-]{8,}\d", request.input):
        return Stop("Please ask again without e-mail addresses and telephone numbers.")
    return Allow()


def names_its_sources(result: StageResult) -> str | None:
    """For a hook: what was researched must say in which documents it was found."""
    if result.todo.agent != "research" or any(name in result.text for name in SHIPPED.names):
        return None
    return "Name the documents that you found it in."


planner = Agent(
    "planner",
    instructions=f"{HOUSE} Plan how to answer the question in two to five steps: look up (steps that need nothing of "
    "each other depend on nothing), then calculate if there is anything to compare, then write.",
)

scope = Agent(
    "scope",
    instructions="Allow questions about the town's trams: lines, passengers, money, plans. Refuse everything else, in "
    "one friendly sentence that says what may be asked.",
)

research = Agent(
    "research",
    description="Looks things up in the documents; says what it found and in which document.",
    instructions=f"{HOUSE} Find what this step asks for and say it in a few lines, with the names of the documents.",
    tools=[list_documents, search_documents, read_document],
)

analysis = Agent(
    "analysis",
    description="Calculates and compares; answers with figures.",
    instructions=f"{HOUSE} Calculate what this step asks for from what was found. Never calculate in your head.",
    tools=[calculate],
    output=Figures,
)

writing = Agent(
    "writing",
    description="Writes the answer for the person who asked.",
    instructions=f"{HOUSE} Write a short, plain answer to the question, with the figures that carry it and the names "
    "of the documents in brackets.",
)

desk = Agent(
    "desk",
    description="Answers questions about the trams of Tarnwick from the town's documents.",
    instructions=HOUSE,
    planner=planner,
    specialists=[research, analysis, writing],
    guardrails=[no_personal_data, scope],
    title=True,
    hooks=[validated(names_its_sources)],
    stream="final",
    planning=Planning(max_todos=5, parallel_stages=2),
)

SHIPPED: Final = Library.shipped()

app = Midstream([desk], resources=[lambda: SHIPPED])
