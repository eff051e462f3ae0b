/**
 * A `Link` without a WebSocket: runs are followed as server-sent events, commands are posted. It says the very frames
 * that a WebSocket would bring; those that only a connection has (`connection.ready`, `receipt`, `heartbeat`, `pong`)
 * are made here of what HTTP does have.
 */

import {
  type Answered,
  answers,
  Closing,
  closingOf,
  comeBack,
  createRequests,
  refusalOf,
  type Refusal,
} from "./http_requests.js";
import { createStreams, pathOf } from "./http_streams.js";
import type { OpenLink } from "./link.js";
import { type Command, type Frame, type FrameOf, PROTOCOL_VERSION, type Receipt } from "./protocol.js";

/** Where a server names no heartbeat that a timer can hold, seconds. */
const DEFAULT_HEARTBEAT_S = 15;
const MAX_HEARTBEAT_S = 86_400;
/** A stream shows life after one to two heartbeats; one that was silent for longer may be dead. */
export const SILENT_HEARTBEATS = 2.5;

type AttachCommand = Extract<Command, { type: "run.attach" }>;
type Offered = NonNullable<NonNullable<AttachCommand["payload"]>["client_tools"]>;

/** Speaks HTTP to the server at `where.url`. The first request is made at once. */
export const openHttp: OpenLink = (events, where) => {
  const { clientId, environment } = where;
  const requests = createRequests(where);
  const who = `?client_id=${encodeURIComponent(clientId)}`;
  const atConnection = `v1/connection${who}`;
  /** The last command to each run that has no answer yet. */
  const lanes = new Map<string, Promise<unknown>>();
  /** Commands that are being answered. */
  const asking = new Set<string>();
  let over = false;
  let cancelBeat = (): void => undefined;

  const pass = (text: string): void => {
    if (!over) events.frame(text);
  };

  const say = <Type extends Frame["type"]>(type: Type, payload: FrameOf<Type>["payload"]): void =>
    pass(JSON.stringify({ v: 1, type, payload }));

  const receipt = (commandId: string, more: Partial<Receipt>): void =>
    say("receipt", { ...more, command_id: commandId, status: "accepted" });

  function refuse(commandId: string, refusal: Refusal, runId?: string): void {
    const named = runId === undefined ? {} : { run_id: runId };
    say("receipt", { ...named, ...refusal, command_id: commandId, status: "rejected" });
  }

  /** Whatever fails is the end of the link: who uses it comes back, and asks again for what it has no answer to. */
  async function attempt(act: () => Promise<void> | void): Promise<void> {
    try {
      // No event before the one who opens the link, or sends, has returned.
      await undefined;
      if (!over) await act();
    } catch (broken) {
      if (over) return;
      close();
      const reason = broken instanceof Error ? broken.message : String(broken);
      events.closed(broken instanceof Closing ? broken.code : 1006, reason);
    }
  }

  const streams = createStreams({
    environment,
    requests,
    pass,
    say,
    receipt,
    refuse,
    attempt: (act) => void attempt(act),
  });

  function close(): void {
    over = true;
    cancelBeat();
    streams.close();
    requests.close();
  }

  // -- opening, and signs of life

  async function open(): Promise<void> {
    const ready = await probe();
    events.opened();
    say("connection.ready", ready);
    const { heartbeat_s: told } = ready;
    const heartbeatMs = (told > 0 && told < MAX_HEARTBEAT_S ? told : DEFAULT_HEARTBEAT_S) * 1000;
    if (!over) scheduleBeat(heartbeatMs);
  }

  /** The server is there, and knows the token: what it says of itself. */
  async function probe(): Promise<FrameOf<"connection.ready">["payload"]> {
    const answer = await requests.ask("GET", atConnection);
    if (answer.status !== 200) throw closingOf(answer);
    if (typeof answer.body?.connection_id !== "string") {
      throw new Closing(1006, "what answers here is no Midstream server");
    }
    return answer.body;
  }

  function scheduleBeat(heartbeatMs: number): void {
    cancelBeat = environment.after(heartbeatMs, () => {
      void attempt(async () => {
        // A stream can be dead although other requests get through.
        streams.reopen(SILENT_HEARTBEATS * heartbeatMs);
        if (environment.now() - streams.heardAt >= heartbeatMs) await probe();
        streams.beat();
        if (!over) scheduleBeat(heartbeatMs);
      });
    });
  }

  /** Who pings does not trust the network. */
  async function ping(t: unknown): Promise<void> {
    streams.reopen(0);
    await probe();
    say("pong", { t } as FrameOf<"pong">["payload"]);
  }

  async function refresh(commandId: string, token: string): Promise<void> {
    const before = requests.token;
    requests.token = token;
    const answer = await requests.ask("GET", atConnection, { refusable: true });
    if (answer.status === 200) return receipt(commandId, {});
    requests.token = before;
    refuse(commandId, refusalOf(answer));
  }

  // -- commands

  /** What is done for one run is done one after the other: that is the order in which commands take effect. */
  function inLane<Result>(key: string, act: () => Promise<Result>): Promise<Result> {
    // Whoever fails ends the link, and those behind it with it.
    const turn = Promise.resolve(lanes.get(key)).then(act);
    lanes.set(key, turn);
    return turn.finally(() => {
      if (lanes.get(key) === turn) lanes.delete(key);
    });
  }

  async function perform(command: Command, text: string): Promise<void> {
    const id = idOf(command);
    // It is sent again if its answer takes long, which is then waited for already.
    if (asking.has(id)) return;
    asking.add(id);
    const named = command.type === "run.start" ? command.payload.run_id : undefined;
    const key = named ?? runIdOf(command) ?? id;
    try {
      for (;;) {
        const again = await inLane(key, () => post(command, text));
        if (again === undefined) return;
        // Its place is taken, so what takes long holds nobody up.
        await new Promise<void>((resolve) => environment.after(again * 1000, resolve));
      }
    } finally {
      asking.delete(id);
    }
  }

  /** Says the receipt; or returns after how many seconds to ask for it again. */
  async function post(command: Command, text: string): Promise<number | undefined> {
    const id = idOf(command);
    const runId = runIdOf(command);
    const start = command.type === "run.start";
    const body = start
      ? JSON.stringify({ ...command.payload, ...(runId === undefined ? {} : { run_id: runId }) })
      : text;
    const path = start ? "v1/runs" : `${pathOf(runId ?? "")}/commands`;
    const answer = await requests.ask("POST", path + who, { body, key: id });
    if (answer.status === 202) return Number(answer.headers.get("retry-after") ?? 1);
    const { body: said } = answer;
    if (start ? typeof said?.run_id !== "string" || answer.status >= 300 : !accepts(answer, id)) {
      refuse(id, refusalIn(answer, id), runId);
      return endIfDraining(answer);
    }
    receipt(id, start ? { run_id: said.run_id, thread_id: said.thread_id, as: said.as } : said);
    // As on a socket: who makes a run, or says what begins one, follows it from its beginning.
    if (said.run_id !== undefined && (start || said.run_id !== runId)) {
      streams.follow(said.run_id, { commandId: id, receipt: false });
    }
    return undefined;
  }

  const accepts = ({ body }: Answered, id: string): boolean => body?.command_id === id && body.status === "accepted";

  /** Throws `Closing` for what is no answer. */
  function refusalIn(answer: Answered, id: string): Refusal {
    if (answer.body?.command_id === id) return { code: "invalid", text: "refused", ...answer.body };
    if (!answers(answer)) throw closingOf(answer);
    return refusalOf(answer);
  }

  /** Nothing else says it here, and what was asked waits for the next connection. */
  function endIfDraining({ body, headers }: Answered): undefined {
    if ((body?.code ?? body?.error?.code) === "draining") {
      throw new Closing(4001, comeBack(Number(headers.get("retry-after") ?? 1)));
    }
  }

  function attach(command: AttachCommand): void {
    const { run_id: runId, payload } = command;
    const tools = payload?.client_tools;
    const attach = { commandId: idOf(command), receipt: true };
    streams.follow(runId, attach, payload, async () => (tools?.length ? offer(runId, tools) : undefined));
  }

  /** On a socket the tools of an attach are offered with it. Or why they are not taken. */
  async function offer(runId: string, tools: Offered): Promise<Refusal | undefined> {
    const id = environment.newId("cmd");
    const payload = { run_id: runId, client_tools: tools };
    const body = JSON.stringify({ v: PROTOCOL_VERSION, type: "tools.offer", command_id: id, payload });
    const ask = () => requests.ask("POST", `${pathOf(runId)}/commands${who}`, { body });
    const answer = await inLane(runId, ask);
    if (answer.status === 202 || accepts(answer, id)) return undefined;
    const refusal = refusalIn(answer, id);
    endIfDraining(answer);
    // Nothing is to be run of it any more, but all to be read.
    return refusal.code === "run_ended" ? undefined : refusal;
  }

  function send(text: string): void {
    const command = JSON.parse(text) as Command;
    const id = idOf(command);
    switch (command.type) {
      case "run.attach":
        return attach(command);
      case "run.detach":
        streams.leave(command.run_id);
        return void attempt(() => receipt(id, { run_id: command.run_id }));
      case "auth.refresh":
        return void attempt(() => refresh(id, command.payload.token));
      case "ping":
        return void attempt(() => ping(command.payload?.t));
      default:
        void attempt(() => perform(command, text));
    }
  }

  void attempt(open);
  return { send, close };
};

const idOf = (command: Command): string => command.command_id ?? "";
const runIdOf = (command: Command): string | undefined => ("run_id" in command ? command.run_id : undefined);
