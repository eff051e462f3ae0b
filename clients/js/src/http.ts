/**
 * A `Link` without a WebSocket: runs are followed as server-sent events, commands are posted. It says the very frames
 * that a WebSocket would bring; those that HTTP does not have (`connection.ready`, `receipt`, `run.attached`,
 * `run.caught_up`, `heartbeat`, `pong`) are made here of what it does have.
 *
 * What HTTP cannot do: offer tools to a run that goes on (`tools.offer`); tools offered by `run.start` are hosted.
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
  serverTime,
} from "./http_requests.js";
import { createStreams, pathOf } from "./http_streams.js";
import type { OpenLink } from "./link.js";
import type { Command, Frame, FrameOf, Receipt } from "./protocol.js";

/** Told as the connection's heartbeat: a stream shows life at least every 20 s by the server's defaults. */
export const HEARTBEAT_S = 20;

// The server's defaults: HTTP has no frame that says what they are set to.
const LIMITS = {
  max_frame_bytes: 1_048_576,
  max_input_bytes: 262_144,
  max_tool_result_bytes: 524_288,
  max_runs: 1_000,
  commands_in_flight: 64,
  command_memory_s: 604_800,
};

const NO_OFFER = {
  code: "unknown_command",
  text: "over HTTP, tools can be offered only to a run that is started: give them to `start`",
};

/** Speaks HTTP to the server at `where.url`. The first request is made at once. */
export const openHttp: OpenLink = (events, where) => {
  const { clientId, environment } = where;
  const requests = createRequests(where);
  /** The last command to each run that has no answer yet. */
  const lanes = new Map<string, Promise<unknown>>();
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
    const { headers } = await probe();
    events.opened();
    say("connection.ready", {
      connection_id: environment.newId("conn"),
      client_id: clientId,
      server: "midstream",
      now: new Date(serverTime(headers)).toISOString(),
      heartbeat_s: HEARTBEAT_S,
      principal: { id: "", name: "" },
      limits: LIMITS,
    });
    if (!over) scheduleBeat();
  }

  /** The server is there, and knows the token. */
  async function probe(): Promise<Answered> {
    const answer = await requests.ask("GET", "v1/agents");
    if (answer.status !== 200) throw closingOf(answer);
    if (!Array.isArray(answer.body?.items)) throw new Closing(1006, "what answers here is no Midstream server");
    return answer;
  }

  function scheduleBeat(): void {
    cancelBeat = environment.after(HEARTBEAT_S * 1000, () => {
      scheduleBeat();
      void attempt(async () => {
        // Streams say their own.
        if (streams.count > 0) return streams.lookAtSilent();
        await probe();
        streams.heartbeat({});
      });
    });
  }

  /** Who pings does not trust the network: a stream can be dead although other requests get through. */
  async function ping(t: unknown): Promise<void> {
    streams.reopenAll();
    await probe();
    say("pong", { t } as FrameOf<"pong">["payload"]);
  }

  async function refresh(commandId: string, token: string): Promise<void> {
    const before = requests.token;
    requests.token = token;
    const answer = await requests.ask("GET", "v1/agents", { refusable: true });
    if (answer.status === 200) return receipt(commandId, {});
    requests.token = before;
    refuse(commandId, refusalOf(answer));
  }

  // -- commands

  /** Commands to one run are posted one after the other: that is the order in which they take effect. */
  async function inLane(command: Command, text: string): Promise<void> {
    const named = command.type === "run.start" ? command.payload.run_id : undefined;
    const key = named ?? runIdOf(command) ?? idOf(command);
    const turn = Promise.resolve(lanes.get(key)).then(() => post(command, text));
    // Whoever fails ends the link, and those behind it with it.
    lanes.set(key, turn);
    const again = await turn;
    if (lanes.get(key) === turn) lanes.delete(key);
    if (again === undefined) return;
    // Its place is taken, so what takes long holds nobody up.
    await new Promise<void>((resolve) => environment.after(again * 1000, resolve));
    await inLane(command, text);
  }

  /** Says the receipt; or returns after how many seconds to ask for it again. */
  async function post(command: Command, text: string): Promise<number | undefined> {
    const id = idOf(command);
    const runId = runIdOf(command);
    const start = command.type === "run.start";
    const query = `?client_id=${encodeURIComponent(clientId)}`;
    const path = start ? "v1/runs" : `${pathOf(runId ?? "")}/commands`;
    const body = start
      ? JSON.stringify({ ...command.payload, ...(runId === undefined ? {} : { run_id: runId }) })
      : text;
    const answer = await requests.ask("POST", path + query, { body, key: id });
    const said = answer.body;
    if (answer.status === 202) return Number(answer.headers.get("retry-after") ?? 1);
    const its: Receipt | undefined = said?.command_id === id ? said : undefined;
    if (start ? typeof said?.run_id === "string" && answer.status < 300 : its?.status === "accepted") {
      receipt(id, start ? { run_id: said.run_id, thread_id: said.thread_id, as: said.as } : said);
      // As on a socket: who makes a run, or says what begins one, follows it from its beginning.
      if (said.run_id !== undefined && (start || said.run_id !== runId)) {
        streams.follow(said.run_id, { commandId: id, receipt: false });
      }
      return undefined;
    }
    if (!its && !answers(answer)) throw closingOf(answer);
    const refusal = its ? { code: "invalid", text: "refused", ...its } : refusalOf(answer);
    refuse(id, refusal, runId);
    // Nothing else says it here, and the command waits for the next connection.
    if (refusal.code === "draining") throw new Closing(4001, comeBack(Number(answer.headers.get("retry-after") ?? 1)));
    return undefined;
  }

  function send(text: string): void {
    const command = JSON.parse(text) as Command;
    const id = idOf(command);
    switch (command.type) {
      case "run.attach":
        return streams.follow(command.run_id, { commandId: id, receipt: true }, command.payload);
      case "run.detach":
        streams.leave(command.run_id);
        return void attempt(() => receipt(id, { run_id: command.run_id }));
      case "tools.offer":
        return void attempt(() => refuse(id, NO_OFFER));
      case "auth.refresh":
        return void attempt(() => refresh(id, command.payload.token));
      case "ping":
        return void attempt(() => ping(command.payload?.t));
      default:
        void attempt(() => inLane(command, text));
    }
  }

  void attempt(open);
  return { send, close };
};

const idOf = (command: Command): string => command.command_id ?? "";
const runIdOf = (command: Command): string | undefined => ("run_id" in command ? command.run_id : undefined);
