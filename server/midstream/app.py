"""`Midstream`: the store, the registry, the agents and the gateway put together as one ASGI application.

Shutdown is staged, because an ASGI server closes sockets before it runs the lifespan's end (serving.py starts it at
the signal): 1. not ready, no new runs, clients are told · 2. runs reach a safe point and are handed over (at most
`drain_grace_s`) · 3. sockets close with 4001 · 4. the store closes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from midstream.agents.catalogue import Catalogue
from midstream.agents.definition import Agent
from midstream.agents.limiter import Limiter
from midstream.agents.outflow.contract import Outflow
from midstream.agents.own import OwnAgent
from midstream.agents.providers.choose import choose_provider
from midstream.agents.providers.contract import Provider
from midstream.agents.tools.signature import BadTool
from midstream.clock import Clock, SystemClock
from midstream.gateway.answers import error_answer
from midstream.gateway.auth import LOCAL, Authenticate, Authenticator, authenticator
from midstream.gateway.gateway import Gateway, Readiness
from midstream.gateway.origin import door_rules
from midstream.log import LogError, Store, open_store
from midstream.logs import Logger
from midstream.outbound import Channel, forward
from midstream.outbound.webhooks import Webhooks
from midstream.runs import Principal, Registry, Stopping
from midstream.settings import BadSettings, Settings, load_settings
from midstream.tasks import spawn, stop
from midstream.telemetry import watch
from midstream_protocol.errors import Unavailable

PROBE_TIMEOUT_S: Final = 2.0
"""How long the store may take to answer a readiness check."""

_NOT_STARTED: Final = (
    "this Midstream was not started: run it with `midstream serve`, or give its lifespan to the app it is mounted in: "
    "Starlette(lifespan=midstream.lifespan, routes=[Mount('/agents', midstream)])"
)

_log = Logger("midstream.app")


class Midstream:
    """An ASGI application: `app = Midstream([Agent("support", instructions="…", tools=[refund])])`.

    Without agents it serves the built-in workspace copilot. `resources` are opened at the start and given to tools
    by type. `outflow` is the app's own part in what leaves a run. `authenticate` is a function of `Credentials` to a
    `Principal` or None (plain or async), instead of the token setting. `settings`, `store`, `provider` and `clock`
    default to the environment's, the settings', and real time. Raises `BadSettings`, `BadTool`.
    """

    def __init__(
        self,
        agents: Sequence[Any] | None = None,
        *,
        resources: Sequence[Any] = (),
        outflow: Outflow | None = None,
        authenticate: Authenticator | Authenticate | None = None,
        settings: Settings | None = None,
        store: Store | None = None,
        provider: Provider | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings: Final = settings if settings is not None else load_settings()
        self.model_note = ""
        """Which model answers and why, once it is started."""
        self.store_name = store.name if store is not None else self.settings.store
        self._agents = None if agents is None else _served(agents)
        self._resources = resources
        if not isinstance(outflow, Outflow | None):
            raise BadTool(f"outflow is of type {type(outflow).__name__}; give Outflow(…) with your functions")
        self._outflow = outflow if outflow is not None else Outflow()
        self._authenticate = authenticate
        self._given_store = store
        self._given_provider = provider
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._gateway: Gateway | None = None
        self._registry: Registry | None = None
        self._store: Store | None = None
        self._stack = AsyncExitStack()
        self._drained: asyncio.Task[None] | None = None
        self._forwards: set[asyncio.Task[str]] = set()

    @property
    def agents(self) -> Sequence[Any]:
        """What it serves, as it was declared; the built-in copilot when nothing was."""
        return self._agents if self._agents is not None else _built_in(self.settings)

    @property
    def resources(self) -> Sequence[Any]:
        """The factories of its tools' resources."""
        return self._resources

    @property
    def outflow(self) -> Outflow:
        """What its runs' events pass on their way out; the server's own token never leaves."""
        token = self.settings.token
        if token is None:
            return self._outflow
        return msgspec.structs.replace(self._outflow, secrets=(*self._outflow.secrets, token.get_secret_value()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan_protocol(receive, send)
        elif self._gateway is not None:
            await self._gateway(scope, receive, send)
        elif scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await error_answer(Unavailable(_NOT_STARTED))(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "not started"})

    async def forward(
        self, run_id: str, channel: Channel, *, principal: Principal = LOCAL, handle: str | None = None, **options: Any
    ) -> str:
        """Follow a run into a chat until it has ended there; returns the message's handle. `principal`: whose run it
        is. `outbound.forward` says the rest, and which `options` there are. Raises `Stopping` when this server is not
        started or goes down: ask again, with the handle, when it is back.
        """
        registry = self._registry
        if registry is None or registry.draining:
            raise Stopping(_NOT_STARTED if registry is None else "this server is going down")
        options = {"clock": self._clock, **options}
        task = spawn(
            forward(registry, run_id, channel, principal=principal, handle=handle, **options),
            name=f"run:{run_id}/forward",
            expected=(Exception,),
        )
        self._forwards.add(task)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise Stopping("this server is going down: ask again, with the handle, when it is back")
            return task.result()
        finally:
            await stop(task)
            self._forwards.discard(task)

    # -- life

    @asynccontextmanager
    async def lifespan(self, _app: Any = None) -> AsyncIterator[None]:
        """Started inside, drained and closed after. Give it to the app that this one is mounted in."""
        await self.open()
        try:
            yield
        finally:
            await self.aclose()

    async def open(self) -> None:
        """Start. Raises `BadSettings` (also for a model that cannot be chosen), `BadTool` for agents that cannot be
        served, `StoreInUse`, `LogUnavailable`, and what a resource raises.
        """
        settings = self.settings
        async with AsyncExitStack() as stack:
            provider = self._given_provider
            if provider is None:
                provider = await self._choose_provider()
                stack.push_async_callback(provider.aclose)
            store = self._given_store or open_store(settings.store_url, clock=self._clock)
            self.store_name = store.name
            catalogue = Catalogue(
                self.agents,
                provider=provider,
                model=provider.default_model,
                resources=self._resources,
                idle_timeout_s=settings.model_idle_timeout_s,
                context_tokens=settings.context_tokens,
                limiter=Limiter(settings.pace()),
                outflow=self.outflow,
            )
            await stack.enter_async_context(catalogue.opened())
            webhooks = Webhooks(settings.webhooks(), store=store, clock=self._clock)
            registry = Registry(
                store=store,
                agents=catalogue,
                limits=settings.limits(),
                clock=self._clock,
                on_create=webhooks.begun,
            )
            stack.push_async_callback(registry.aclose)
            await registry.open()
            stack.push_async_callback(webhooks.aclose)
            await webhooks.open(registry.taps)
            token = settings.token.get_secret_value() if settings.token is not None else None
            self._gateway = Gateway(
                registry=registry,
                authenticator=authenticator(self._authenticate, token=token),
                rules=door_rules(
                    bound_host=settings.host,
                    allowed_hosts=settings.allowed_hosts,
                    allowed_origins=settings.allowed_origins,
                ),
                options=settings.gateway_options(server=f"midstream/{version('midstream')}"),
                clock=self._clock,
                agents=catalogue.describe,
                readiness=self._readiness,
            )
            stack.callback(watch(self._gateway.census))
            self._registry, self._store, self._stack = registry, store, stack.pop_all()
            self._drained = None

    async def drain(self) -> None:
        """Stages 1 to 3. May be called again: it is done once."""
        if self._gateway is None or self._registry is None:
            return
        if self._drained is None:
            self._drained = spawn(self._drain(self._gateway, self._registry), name="app/drain")
        await asyncio.shield(self._drained)

    async def hurry(self) -> None:
        """Cut stage 2 of a drain under way short: what still works is stopped where it is."""
        if self._registry is not None:
            await self._registry.drain(0)

    async def aclose(self) -> None:
        """All stages. A request after this is answered as before the start."""
        try:
            await self.drain()
        finally:
            self._gateway = self._registry = self._store = None
            await stop(*self._forwards)
            await self._stack.aclose()

    @staticmethod
    async def _drain(gateway: Gateway, registry: Registry) -> None:
        gateway.announce_drain()
        await registry.drain()
        await gateway.close()

    async def _lifespan_protocol(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except Exception as error:  # noqa: BLE001 - the server is told, whatever it is
            if not isinstance(error, BadSettings | BadTool | LogError):
                _log.exception("the start failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    # -- parts

    async def _choose_provider(self) -> Provider:
        choose: Callable[..., tuple[Provider, str]] = choose_provider
        try:
            # In a thread: the adapters' imports take up to a second.
            provider, self.model_note = await asyncio.to_thread(
                choose,
                model=self.settings.model,
                api_key=os.environ.get("ANTHROPIC_API_KEY"),
                base_url=os.environ.get("ANTHROPIC_BASE_URL"),
                local_ok=self.settings.local_model,
                script=None,
                clock=self._clock,
            )
        except ValueError as error:
            raise BadSettings(str(error)) from error
        return provider

    async def _readiness(self) -> Readiness:
        gateway, registry, store = self._gateway, self._registry, self._store
        if gateway is None or registry is None or store is None:
            return Readiness(reasons=["closed"])
        reasons = ["draining"] if gateway.draining or registry.draining else []
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await store.records.get("server", "key")
        except (LogError, TimeoutError):
            reasons.append("the store does not answer")
        missing = sorted(set(registry.missing_agents.values()))
        notes = [f"runs wait for agents that are not served here: {', '.join(missing)}"] if missing else []
        return Readiness(reasons=reasons, notes=notes)


def _served(agents: Any) -> Sequence[Agent | OwnAgent]:
    if isinstance(agents, str | Agent | OwnAgent) or not isinstance(agents, Iterable):
        raise BadTool("an app takes a list of its agents: Midstream([Agent(…)])")
    served = tuple(agents)
    for each in served:
        if not isinstance(each, Agent | OwnAgent):
            what = getattr(each, "__qualname__", None) or f"a value of type {type(each).__name__}"
            raise BadTool(f"{what} is no agent; declare it with Agent(…), or with @agent where it is a function")
    return served


def _built_in(settings: Settings) -> list[Agent]:
    from midstream.agents.workspace import workspace_agent  # noqa: PLC0415 - only where it is served

    try:
        return [workspace_agent(settings.workspace)]
    except OSError as error:
        raise BadSettings(f"MIDSTREAM_WORKSPACE (--workspace): {error}") from error
