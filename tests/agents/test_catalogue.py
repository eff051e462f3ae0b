"""The agents of an app, its resources, and the public names."""

import contextlib

import pytest

import midstream
from midstream import Agent, BadTool, Run, ToolContext, agent, ask_when, client_tool, tool
from midstream.agents.catalogue import Catalogue
from midstream.agents.pipeline.hooks import continue_failed
from midstream.agents.providers.scripted import ScriptedProvider
from midstream.agents.resources import Resources
from midstream.runs.contract import Principal, StartRecord


class Shop:
    pass


class Bank:
    pass


@tool
async def sell(shop: Shop, ctx: ToolContext, n: int) -> int:
    """Sell."""
    return n


@client_tool(approval="always")
async def show(n: int) -> None:
    """Show."""


@agent("own", tools=[tool(approval=ask_when(lambda a: True), name="maybe")(sell.fn)], description="Mine.")
async def own(run: Run, bank: Bank) -> None: ...


SHOP = Agent("shop", instructions="Sell.", tools=[sell, show], can_ask=True, description="Sells.", model="big")
WRITER = Agent("writing", instructions="Write.", tools=[sell], description="Writes.")
OTHER_SELL = tool(name="sell")(sell.fn)


def team(planner=None, specialists=(WRITER,), **options):
    planner = planner or Agent("planner", instructions="Plan.")
    return Agent("desk", instructions="x", planner=planner, specialists=specialists, **options)


PROVIDER = ScriptedProvider({"turns": [{"steps": [{"text": "x"}]}]})


def start(name):
    return StartRecord(
        run_id="r",
        thread_id="t",
        agent=name,
        principal=Principal(id="p", name="P"),
        input="x",
        secret="00",
        created_ms=0,
    )


def test_what_it_says_of_its_agents():
    catalogue = Catalogue([SHOP, own], provider=PROVIDER)
    assert catalogue.default == "shop"
    assert catalogue.names() == ["shop", "own"]
    shop, mine = catalogue.describe()
    assert (shop["name"], shop["description"], shop["default"], shop["model"]) == ("shop", "Sells.", True, "big")
    assert [(t["name"], t["client"], t["approval"]) for t in shop["tools"]] == [
        ("sell", False, "never"),
        ("show", True, "always"),
        ("ask_user", False, "never"),
    ]
    assert (mine["steerable"], [t["approval"] for t in mine["tools"]]) == (False, ["sometimes"])
    assert catalogue.program(start("gone")) is None
    assert catalogue.rules("gone") is None
    assert catalogue.rules("shop").is_server_tool("sell")
    assert not catalogue.rules("shop").is_server_tool("show")


def test_a_team_is_served_as_one():
    catalogue = Catalogue([team(tools=[show])], provider=PROVIDER)
    [desk] = catalogue.describe()
    assert [each["name"] for each in desk["tools"]] == ["show", "sell"]
    assert desk["specialists"] == [{"name": "writing", "description": "Writes."}]
    assert catalogue.rules("desk").is_server_tool("sell")
    assert catalogue.program(start("desk")) is not None
    assert catalogue.program(start("writing")) is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Catalogue([], provider=PROVIDER), "needs an agent"),
        (lambda: Catalogue([SHOP, SHOP], provider=PROVIDER), "two agents"),
        (lambda: Agent("a", instructions="", tools=[sell, sell]), "two of its tools"),
        (lambda: Agent("a", instructions="", tools=[print]), "is no tool"),
        (lambda: Agent("a b", instructions=""), "cannot be called"),
        (lambda: Agent("a", instructions="", model=[]), "list of models is empty"),
        (lambda: Agent("a", instructions="", output=open), "no type that JSON can be"),
        (lambda: Agent("a", instructions="", specialists=[WRITER]), "need a planner"),
        (lambda: Agent("a", instructions="", hooks=[continue_failed()]), "need a planner"),
        (lambda: team(Agent("planner", instructions="", tools=[sell])), "planner plans, titles or judges"),
        (lambda: team(Agent("planner", instructions="", can_ask=True)), "planner plans, titles or judges"),
        (lambda: team(title=Agent("namer", instructions="", tools=[sell])), "namer plans, titles or judges"),
        (lambda: team(guardrails=[Agent("guard", instructions="", tools=[sell])]), "guard plans, titles or judges"),
        (lambda: team(specialists=[WRITER, WRITER]), "two of its specialists have one name"),
        (lambda: team(specialists=[Agent("desk", instructions="")]), "or one has its own"),
        (lambda: team(specialists=[Agent("x", instructions="", title=True)]), "specialist x cannot plan"),
        (lambda: team(tools=[sell], specialists=[Agent("x", instructions="", tools=[OTHER_SELL])]), "called sell"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(make, says):
    with pytest.raises(BadTool, match=says):
        make()


class TestResources:
    log: list[str]

    async def opened(self, *factories, wanted=((Shop, "x"),)):
        resources = Resources(factories, wanted=wanted)
        async with resources.opened():
            found = dict(resources.by_type)
        assert resources.by_type == {}
        return found

    @pytest.mark.parametrize("form", ["plain", "async", "generator", "context", "async context"])
    @pytest.mark.asyncio
    async def test_every_form_of_a_factory(self, form):
        log = []

        async def made():
            return Shop()

        async def yielded():
            yield Shop()
            log.append("closed")

        @contextlib.contextmanager
        def context():
            yield Shop()
            log.append("closed")

        factory = {
            "plain": Shop,
            "async": made,
            "generator": yielded,
            "context": context,
            "async context": contextlib.asynccontextmanager(yielded),
        }[form]
        found = await self.opened(factory)
        assert isinstance(found[Shop], Shop)
        assert log == ([] if form in ("plain", "async") else ["closed"])

    @pytest.mark.asyncio
    async def test_what_is_missing_or_double_is_said(self):
        with pytest.raises(BadTool, match="x needs a Shop, and none"):
            await self.opened(Bank)
        with pytest.raises(BadTool, match="2 of the app's resources"):
            await self.opened(Shop, Shop)

    @pytest.mark.asyncio
    async def test_what_was_opened_is_closed_when_the_next_fails(self):
        log = []

        async def first():
            yield Shop()
            log.append("closed")

        def second():
            raise OSError("no")

        async def robust():
            try:
                yield Shop()
            finally:
                log.append("closed")

        with pytest.raises(OSError):
            await self.opened(robust, second)
        assert log == ["closed"]
        del first

    @pytest.mark.asyncio
    async def test_the_catalogue_knows_what_its_tools_want(self):
        async with Catalogue([SHOP, own], provider=PROVIDER, resources=[Shop, Bank]).opened():
            pass
        with pytest.raises(BadTool, match="tool sell of agent desk needs a Shop"):
            async with Catalogue([team()], provider=PROVIDER).opened():
                pass
        with pytest.raises(BadTool, match="agent own needs a Bank"):
            async with Catalogue([SHOP, own], provider=PROVIDER, resources=[Shop]).opened():
                pass


def test_the_public_names():
    assert midstream.__all__ == sorted(midstream.__all__)
    assert all(hasattr(midstream, name) for name in midstream.__all__)
