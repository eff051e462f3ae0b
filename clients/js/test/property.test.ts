import fc from "fast-check";
import { expect, it } from "vitest";
import type { Run, RunEvent, Update } from "../src/index.js";
import { emptyView, foldAll } from "../src/view.js";
import { collect, settle, world, type World } from "./fake/world.js";

// What moves the world on is drawn more often than what disturbs it, or nothing would ever get far.
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ what: fc.constant("deliver" as const), times: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 3, arbitrary: fc.record({ what: fc.constant("append" as const), times: fc.integer({ min: 1, max: 4 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      what: fc.constantFrom("cut", "lose", "repeat", "swap", "correct", "iterate", "abandon", "wait", "stall", "beat", "reset"),
      times: fc.constant(1),
    }),
  },
);

class Schedule {
  readonly world: World;
  run!: Run;
  readonly iterated: Promise<RunEvent[]>[] = [];
  readonly receipts: Promise<unknown>[] = [];
  readonly told: Update[] = [];
  last = "";

  constructor(maxReplay: number | undefined) {
    this.world = world({ server: maxReplay === undefined ? {} : { maxReplay } });
  }

  async begin(byStart: boolean, sinceSeq: number): Promise<void> {
    const { client, server } = this.world;
    server.log();
    const onUpdate = (update: Update) => void this.told.push(update);
    this.run = await (byStart
      ? client.start({ input: "x", runId: "run_1", onUpdate })
      : client.attach("run_1", { sinceSeq, onUpdate }));
    server.held = true;
    this.iterated.push(collect(this.run));
  }

  async take(what: string, times: number): Promise<void> {
    const { server, clock } = this.world;
    const { socket } = server;
    if (what === "deliver") {
      this.last = socket.out[times - 1] ?? this.last;
      socket.deliver(times);
    } else if (what === "append" && !server.ended()) server.append(times);
    else if (what === "cut") {
      socket.cut();
      await clock.advance(20_000);
    } else if (what === "lose" && socket.out[0]?.includes('"seq":') && !socket.out[0].includes("caught_up")) socket.out.shift();
    else if (what === "repeat" && this.last && socket.open) socket.onmessage?.({ data: this.last });
    else if (what === "swap" && socket.out.length > 1) socket.out.unshift(...socket.out.splice(1, 1));
    else if (what === "correct") this.receipts.push(this.run.correct("x"));
    else if (what === "iterate") this.iterated.push(collect(this.run));
    else if (what === "abandon") void this.run[Symbol.asyncIterator]().next().catch(() => {});
    else if (what === "wait") await clock.advance(3000);
    else if (what === "stall") await clock.advance(30_000);
    else if (what === "beat" && socket.open) {
      const runs = socket.following.has("run_1") ? { run_1: server.log().length } : {};
      socket.say(JSON.stringify({ v: 1, type: "heartbeat", payload: { now: "", runs } }));
    } else if (what === "reset" && socket.following.has("run_1")) server.reset(socket, "too_far");
    await settle();
  }

  async finish(): Promise<void> {
    const { server, clock } = this.world;
    if (!server.ended()) server.end();
    server.held = false;
    server.socket.deliver();
    // A lost last frame shows at the next connection or heartbeat.
    server.socket.cut();
    await clock.advance(20_000);
    await settle();
  }
}

it("any schedule gives every event once and in order, the fold of all, and each command once", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 5, maxLength: 60 }),
      fc.boolean(),
      fc.integer({ min: 0, max: 2 }),
      async (steps, byStart, sinceSeq) => {
        const schedule = new Schedule(undefined);
        await schedule.begin(byStart, sinceSeq);
        for (const { what, times } of steps) {
          const { seq } = schedule.run.view.cursor;
          await schedule.take(what, times);
          expect(schedule.run.view.cursor.seq, "the view never goes back").toBeGreaterThanOrEqual(seq);
        }
        await schedule.finish();
        const { server } = schedule.world;
        const log = server.log();
        const begin = byStart ? 0 : sinceSeq;
        for (const events of await Promise.all(schedule.iterated)) expect(events).toEqual(log.slice(begin));
        const whole = foldAll(emptyView("run_1"), log, "e_1");
        expect(schedule.run.view).toEqual(whole);
        expect(await schedule.run.finished).toEqual(whole);
        // Who folds for himself comes to the same.
        let own = emptyView("run_1");
        for (const update of schedule.told) {
          if (update.kind === "event") own = foldAll(own, [update.event], "e_1");
          else if (update.kind === "reset") own = update.view;
        }
        expect(own).toEqual(whole);
        await Promise.all(schedule.receipts);
        const performed = server.performed.map((command) => command["command_id"]);
        expect(new Set(performed).size).toBe(performed.length);
        expect(server.performed.filter((command) => command["type"] === "run.correct")).toHaveLength(schedule.receipts.length);
        expect(schedule.world.reported).toEqual([]);
      },
    ),
    { numRuns: 150 },
  );
}, 60_000);

it("also where the server replays little: the view is whole, and an iterator gives a beginning or all", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const schedule = new Schedule(2);
      await schedule.begin(true, 0);
      const ended = schedule.iterated.map((all) => all.catch((error) => error));
      for (const { what, times } of steps) {
        await schedule.take(what, times);
        while (ended.length < schedule.iterated.length) ended.push(schedule.iterated[ended.length]!.catch((error) => error));
      }
      await schedule.finish();
      const log = schedule.world.server.log();
      for (const result of await Promise.all(ended)) {
        if (result instanceof Error) expect(result).toMatchObject({ code: "reset" });
        else expect(result).toEqual(log);
      }
      expect(schedule.run.view).toEqual(foldAll(emptyView("run_1"), log, "e_1"));
    }),
    { numRuns: 100 },
  );
}, 60_000);
