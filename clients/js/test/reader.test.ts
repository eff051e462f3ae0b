import { describe, expect, it } from "vitest";
import { MAX_UNREAD } from "../src/reader.js";
import { collect, following, settle, world } from "./fake/world.js";

const seqs = (events: readonly { seq: number }[]) => events.map(({ seq }) => seq);
const upTo = (last: number, first = 1) => Array.from({ length: last - first + 1 }, (_, at) => first + at);

describe("an iterator", () => {
  it("gives every event once and in order, and is done after the last one", async () => {
    const { server, clock, run } = await following();
    const all = collect(run);
    server.append(3);
    await settle();
    server.socket.cut();
    server.append(2);
    await clock.advance(250);
    server.end();
    expect(seqs(await all)).toEqual(upTo(8));
  });

  it("that is late begins at the beginning all the same, also after the end", async () => {
    const { server, run } = await following();
    const first = run[Symbol.asyncIterator]();
    await first.next();
    server.append(5);
    await settle();
    const late = run[Symbol.asyncIterator]();
    expect((await late.next()).value?.seq).toBe(1);
    server.end();
    const rest = collect({ [Symbol.asyncIterator]: () => first });
    expect(seqs(await collect(run))).toEqual(upTo(8));
    expect(seqs(await collect(run))).toEqual(upTo(8));
    expect(seqs(await rest)).toEqual(upTo(8, 2));
    expect(run.view.cursor.seq).toBe(8);
  });

  it("that stops leaves the run alone", async () => {
    const { server, run } = await following();
    for await (const { seq } of run) if (seq === 2) break;
    server.append();
    await settle();
    expect(run.view.cursor.seq).toBe(3);
    expect(run.attached).toBe(true);
  });

  it("that waits is ended by return", async () => {
    const { run } = await following();
    const iterator = run[Symbol.asyncIterator]();
    await iterator.next();
    await iterator.next();
    const waiting = iterator.next();
    expect(await iterator.return?.()).toEqual({ done: true, value: undefined });
    expect(await waiting).toEqual({ done: true, value: undefined });
  });

  it("takes several nexts at once", async () => {
    const { server, run } = await following();
    const iterator = run[Symbol.asyncIterator]();
    const asked = [1, 2, 3, 4].map(() => iterator.next());
    server.append(2);
    const got = await Promise.all(asked);
    expect(got.map(({ value }) => value?.seq)).toEqual([1, 2, 3, 4]);
  });

  it("that is slow holds a bounded number, and reads the rest from the server", async () => {
    const { server, run } = await following();
    const iterator = run[Symbol.asyncIterator]();
    expect((await iterator.next()).value?.seq).toBe(1);
    server.append(3 * MAX_UNREAD);
    server.end();
    await settle();
    expect(run.ended).toBe(true);
    const rest = await collect({ [Symbol.asyncIterator]: () => iterator });
    expect(seqs(rest)).toEqual(upTo(3 * MAX_UNREAD + 3, 2));
    expect(server.commands("run.attach").length).toBeGreaterThan(1);
  });

  it("that never comes costs one attach and no more", async () => {
    const { server, run } = await following();
    server.append(2 * MAX_UNREAD);
    await settle();
    expect(run.view.cursor.seq).toBe(2 * MAX_UNREAD + 2);
    expect(server.commands("run.attach")).toHaveLength(1);
  });

  it("reads joined events where the whole log is too long", async () => {
    const { client, server } = world({ server: { maxReplay: 10 } });
    server.log();
    server.append(50);
    server.end();
    const run = await client.attach("run_1");
    expect((await run.finished).cursor.seq).toBe(53);
    expect(seqs(await collect(run))).toEqual(upTo(53));
    expect(server.commands("run.attach").map(({ payload }) => payload.replay)).toEqual([undefined, "merged"]);
  });

  it("says so when the events are not there any more", async () => {
    const { client, server } = world({ server: { maxReplay: 10 } });
    server.log();
    server.append(500);
    const run = await client.attach("run_1");
    await settle();
    expect(run.view.cursor.seq, "the view is whole").toBe(502);
    await expect(collect(run)).rejects.toMatchObject({ code: "reset" });
    server.trimmedTo = 100;
    await expect(collect(run)).rejects.toMatchObject({ code: "reset" });
    expect(run.attached).toBe(true);
  });

  it("says so when the history is another one than what it gave", async () => {
    const { server, clock, run } = await following();
    const iterator = run[Symbol.asyncIterator]();
    await iterator.next();
    server.epoch = "e_2";
    server.socket.cut();
    await clock.advance(250);
    await iterator.next();
    await expect(iterator.next()).rejects.toMatchObject({ code: "reset" });
  });

  it("goes on while reading again is cut", async () => {
    const { server, clock, run } = await following();
    server.append(20);
    await settle();
    const first = run[Symbol.asyncIterator]();
    await first.next();
    server.held = true;
    const late = run[Symbol.asyncIterator]();
    const got = late.next();
    await settle();
    server.socket.deliver(6);
    expect((await got).value?.seq).toBe(1);
    server.held = false;
    server.socket.cut();
    server.append(2);
    await clock.advance(250);
    server.end();
    expect(seqs(await collect({ [Symbol.asyncIterator]: () => late }))).toEqual(upTo(25, 2));
    expect(seqs(await collect({ [Symbol.asyncIterator]: () => first }))).toEqual(upTo(25, 2));
    expect(run.view.cursor.seq).toBe(25);
  });

  it("after the client is closed ends with what it has", async () => {
    const { client, run } = await following();
    const iterator = run[Symbol.asyncIterator]();
    await settle();
    client.close();
    expect((await iterator.next()).value?.seq).toBe(1);
    expect((await iterator.next()).value?.seq).toBe(2);
    await expect(iterator.next()).rejects.toMatchObject({ code: "closed" });
  });
});

describe("of a run that ended", () => {
  it("two objects can be read at the same time", async () => {
    const { client, server, run } = await following();
    server.end();
    await run.finished;
    const other = await client.attach("run_1");
    expect(other).not.toBe(run);
    const [own = [], others = []] = await Promise.all([collect(run), collect(other), collect(run)]);
    expect([seqs(own), seqs(others)]).toEqual([upTo(3), upTo(3)]);
    server.held = true;
    const third = client.attach("run_1");
    const late = collect(run);
    await settle();
    client.run("run_1")?.detach();
    await expect(third).rejects.toMatchObject({ code: "detached" });
    server.held = false;
    server.socket.deliver();
    expect(seqs(await late)).toEqual(upTo(3));
    server.held = true;
    const fourth = client.attach("run_1");
    const both = collect(run);
    await settle();
    server.held = false;
    server.socket.deliver();
    expect(seqs(await both)).toEqual(upTo(3));
    expect(seqs(await collect(await fourth))).toEqual(upTo(3));
  });
});

describe("since a place", () => {
  it("iterators begin there, and the view is whole", async () => {
    const { client, server } = world();
    server.log();
    server.append(8);
    const run = await client.attach("run_1", { sinceSeq: 6 });
    expect(run.view.messages[0]?.text).toBe("3 4 5 6 7 8 9 10 ");
    server.end();
    expect(seqs(await collect(run))).toEqual(upTo(11, 7));
    expect(seqs(await collect(run))).toEqual(upTo(11, 7));
  });

  it("at the head there is nothing to read again", async () => {
    const { client, server } = world();
    server.log();
    const run = await client.attach("run_1", { sinceSeq: 2 });
    const all = collect(run);
    await settle();
    server.end();
    expect(seqs(await all)).toEqual([3]);
    expect(server.commands("run.attach")).toHaveLength(1);
  });

  it("of a snapshot there is no history", async () => {
    const { client, server } = world();
    server.log();
    server.append(3);
    const run = await client.attach("run_1", { replay: "snapshot" });
    expect(run.view.cursor.seq).toBe(5);
    server.end();
    expect(seqs(await collect(run))).toEqual([6]);
  });

  it.each([{ sinceSeq: 99 }, { sinceSeq: 2, epoch: "e_0" }])("that was never there is said: %j", async (options) => {
    const { client, server } = world();
    server.log();
    const run = await client.attach("run_1", options);
    expect(run.view.cursor.seq).toBe(2);
    await expect(collect(run)).rejects.toMatchObject({ code: "reset" });
    server.append(2);
    server.end();
    expect(seqs(await collect(run)), "what follows the snapshot").toEqual([3, 4, 5]);
  });

  it("means nothing in another history", async () => {
    const { client, server, clock } = world();
    server.log();
    server.append(8);
    const run = await client.attach("run_1", { sinceSeq: 8 });
    server.epoch = "e_2";
    server.logs.set("run_1", server.log().slice(0, 4));
    server.socket.cut();
    await clock.advance(250);
    await expect(collect(run)).rejects.toMatchObject({ code: "reset" });
    server.append(2);
    server.end();
    expect(seqs(await collect(run))).toEqual([5, 6, 7]);
  });
});
