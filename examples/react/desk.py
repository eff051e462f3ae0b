"""A poster desk: it looks up dates, designs with the person who asked, and orders prints when they agree.

`app` is its server, `site` the same below /agents beside the built page.
"""

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from midstream import Agent, Midstream, Preview, ToolContext, client_tool, tool

PAGE: Final = Path(__file__).with_name("dist")
PRICE: Final = 0.45
"""Crowns for one print."""

STALLS: Final = {
    "Saturday": [("Bread", "Kohl's bakery"), ("Honey", "The abbey"), ("Cheese", "Hill farm")],
    "Sunday": [("Books", "The library's friends"), ("Plants", "Garden club")],
}


@tool(label="Look up the stalls on {day}", idempotent=True)
async def find_stalls(day: str, context: ToolContext) -> str:
    """Who has a stall at the market, on Saturday or Sunday. It is shown as a table."""
    stalls = STALLS.get(day, [])
    rows = [list(stall) for stall in stalls]
    await context.object("table", {"title": f"Stalls on {day}", "columns": ["What", "Who"], "rows": rows})
    return ", ".join(f"{what} ({who})" for what, who in stalls) or f"none on {day}"


@client_tool(label="Choose a colour", timeout=600)
async def pick_color(question: str) -> str:
    """Have the person choose the colour of the poster. It is the page's to know, and returned as #rrggbb."""
    raise NotImplementedError  # Whoever offers it does it: here, src/color.tsx.


@tool(label="Show the poster", idempotent=True)
async def show_poster(heading: str, when: str, lines: list[str], context: ToolContext) -> str:
    """Show the poster in the colour that was chosen."""
    await context.object("poster", {"heading": heading, "when": when, "lines": lines})
    return "The poster is shown."


def price_of(arguments: object) -> Preview:
    copies: int = getattr(arguments, "copies", 0)
    return Preview(kind="text", data=f"{copies} prints for {copies * PRICE:.2f} crowns, fetched tomorrow.")


@tool(label="Order {copies} prints", approval="always", risk="medium", editable=True, preview=price_of)
async def order_prints(copies: int) -> str:
    """Order prints of the poster."""
    return f"Ordered {copies} prints for {copies * PRICE:.2f} crowns."


HOUSE: Final = "You make posters for a town's market."

planner = Agent(
    "planner", instructions=f"{HOUSE} Plan: look up what there will be, design the poster, then have it printed."
)

desk = Agent(
    "posters",
    description="Designs a poster for the market, and has it printed.",
    instructions=HOUSE,
    planner=planner,
    specialists=[
        Agent("facts", description="Knows the stalls.", instructions=HOUSE, tools=[find_stalls]),
        Agent(
            "design",
            description="Designs the poster with the person: colour first.",
            instructions=HOUSE,
            tools=[pick_color, show_poster],
        ),
        Agent("print", description="Orders prints.", instructions=HOUSE, tools=[order_prints]),
    ],
    title=True,
)


def site_of(agents: Midstream, page: Path = PAGE) -> Starlette:
    # `lifespan` starts the agents' server with the site, and drains it at the end.
    pages = StaticFiles(directory=page, html=True, check_dir=False)
    return Starlette(lifespan=agents.lifespan, routes=[Mount("/agents", agents), Mount("/", pages)])


app = Midstream([desk])
site = site_of(app)
