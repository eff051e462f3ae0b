import fc from "fast-check";
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { MAX_BLOCK, MAX_MARKDOWN, NO_BLOCKS, nextBlocks, type Blocks } from "../src/text/blocks.js";
import { decoded } from "../src/text/entities.js";
import { Markdown } from "../src/text/markdown.js";
import { PlainText, SLICE } from "../src/text/plain.js";
import { asJson, cut, MAX_INLINE, safeHref, safeInline, visible, visibleProse, withoutAnsi } from "../src/text/safe.js";

let root: HTMLElement;
beforeEach(() => {
  root = document.createElement("div");
  document.body.append(root);
});
afterEach(() => {
  render(null, root);
  root.remove();
  vi.useRealTimers();
});

const show = (node: Parameters<typeof render>[0]): HTMLElement => {
  act(() => render(node, root));
  return root;
};

const strange = fc.string({ unit: "binary", maxLength: 400 });
const markup = fc
  .array(
    fc.constantFrom(
      "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![i](http://x/i.png)",
      "# h\n", "- a\n", "> q\n", "```js\n", "```\n", "|a|b|\n|-|-|\n|1|2|\n", "**b**", "*", "_", "`", "\n\n", "\n", "  ",
      "[x]: http://y\n", "[x]", "<a href='javascript:x'>", "<!--", "-->", "&lt;", "1. a\n", "\r\n", "text ", "\t", "<style>*{}</style>",
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(""));

describe("one line", () => {
  test("shows what would hide or turn the line around", () => {
    expect(safeInline("pay \u202Egpj.exe")).toBe("pay [U+202E]gpj.exe");
    expect(safeInline("a\u0000b\nc\u200bd")).toBe("a[U+0000]b\u21b5c[U+200B]d");
  });
  test("shows letters that are blank, and does not let marks be heaped on one letter", () => {
    expect(safeInline("a\u3164b\u2800c\u115fd")).toBe("a[U+3164]b[U+2800]c[U+115F]d");
    expect(visibleProse(`Z${"\u0336".repeat(100)} e\u0301\u0323`)).toBe(`Z${"\u0336".repeat(8)}[+92 marks] e\u0301\u0323`);
  });
  test("takes terminal sequences out", () => {
    expect(safeInline("\u001b[31mred\u001b[0m \u001b]8;;http://evil\u0007link\u001b]8;;\u0007")).toBe("red link");
  });
  test("is bounded, whatever comes", () => {
    const all = safeInline("x".repeat(10_000_000));
    expect(all.length).toBe(MAX_INLINE);
    expect(all.endsWith("\u2026")).toBe(true);
    fc.assert(
      fc.property(strange, fc.integer({ min: 2, max: 50 }), (text, max) => {
        const line = safeInline(text, max);
        return line.length <= max && !/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(line);
      }),
    );
  });
  test("takes anything", () => {
    expect(safeInline(undefined)).toBe("");
    expect(safeInline(17)).toBe("17");
  });
});

test("a cut never leaves half a character", () => {
  fc.assert(fc.property(strange, fc.nat(60), (text, max) => !/[\ud800-\udbff]$/.test(cut(text, max)) || text.length <= max));
});

test("text stays as it was but for the unseen", () => {
  expect(visible("a\r\nb\tc")).toBe("a\nb\tc");
  expect(visible("\u001b[2J")).toBe("[U+001B][2J");
  expect(visible("\ud83d\udc69\u200d\ud83d\ude80 \ud800!")).toBe("\ud83d\udc69\u200d\ud83d\ude80 \ufffd!");
  expect(visibleProse("\u05e9\u05dc\u05d5\u05dd\u200f!")).toBe("\u05e9\u05dc\u05d5\u05dd\u200f!");
  expect(visibleProse("\u2066x")).toBe("[U+2066]x");
  expect(withoutAnsi("\u009b1mx")).toBe("x");
});

test("links go to http, https and mail alone", () => {
  expect(safeHref("https://a.example/b")).toBe("https://a.example/b");
  expect(safeHref("mailto:a@b.example")).toBe("mailto:a@b.example");
  for (const bad of ["javascript:alert(1)", " JaVaScRiPt:alert(1)", "data:text/html,x", "//evil", "/v1/runs", "java\nscript:x", "vbscript:x"])
    expect(safeHref(bad)).toBeUndefined();
});

test("JSON of anything", () => {
  const circle: Record<string, unknown> = {};
  circle["self"] = circle;
  expect(asJson(circle)).toBe("[object Object]");
  expect(asJson({ a: 1 })).toBe('{\n  "a": 1\n}');
});

test("character references, and none that are not", () => {
  expect(decoded("&lt;b&gt; &amp;lt; &#65;&#x42; &nosuch; &#0; &#xD800;")).toBe("<b> &lt; AB &nosuch; \ufffd \ufffd");
});

describe("blocks", () => {
  test("a growing text has the blocks of the whole, at every length", () => {
    fc.assert(
      fc.property(markup, fc.array(fc.nat(60), { maxLength: 12 }), (text, steps) => {
        let blocks = NO_BLOCKS;
        let at = 0;
        for (const step of steps) {
          at = Math.min(text.length, at + step);
          blocks = nextBlocks(blocks, text.slice(0, at), false);
        }
        const rawOf = (of: Blocks): string[] => of.tokens.map((token) => token.raw);
        if (!text.includes("]:")) expect(rawOf(blocks)).toEqual(rawOf(nextBlocks(NO_BLOCKS, text.slice(0, at), false)));
        const end = nextBlocks(blocks, text, true);
        expect(rawOf(end)).toEqual(rawOf(nextBlocks(NO_BLOCKS, text, true)));
        expect(nextBlocks(end, text, true)).toBe(end);
      }),
    );
  });
  test("closed blocks keep their identity while the last one grows", () => {
    const first = nextBlocks(NO_BLOCKS, "# Head\n\nOne.\n\nTw", false);
    const second = nextBlocks(first, "# Head\n\nOne.\n\nTwo and more", false);
    expect(second.tokens[0]).toBe(first.tokens[0]);
    expect(second.tokens[2]).toBe(first.tokens[2]);
    expect(second.tokens.at(-1)).not.toBe(first.tokens.at(-1));
  });
  test("what would take long is not read", () => {
    const nested = nextBlocks(NO_BLOCKS, ">".repeat(90_000), true);
    expect(nested.tokens.map((token) => token.raw).join("").length).toBe(90_000);
    const long = nextBlocks(NO_BLOCKS, "*a ".repeat(MAX_BLOCK), true);
    expect((long.tokens[0] as { tokens?: unknown[] }).tokens).toHaveLength(1);
  });
});

describe("markdown", () => {
  test("becomes elements of a fixed set, with nothing that runs or loads", () => {
    const allowed = new Set(
      "DIV P H3 H4 H5 H6 UL OL LI STRONG EM DEL CODE PRE A BR HR BLOCKQUOTE TABLE THEAD TBODY TR TH TD SPAN BUTTON".split(" "),
    );
    const attributes = new Set(["class", "dir", "href", "target", "rel", "type", "start", "tabindex", "role", "aria-label"]);
    fc.assert(
      fc.property(markup, (text) => {
        const shown = show(<Markdown text={text} />);
        for (const element of shown.querySelectorAll("*")) {
          expect(allowed).toContain(element.tagName);
          for (const { name } of element.attributes) expect(attributes).toContain(name);
          if (element.tagName === "A") expect(element.getAttribute("href")).toMatch(/^(https?:|mailto:)/);
        }
      }),
      { numRuns: 150 },
    );
  });
  test("markup is shown as text", () => {
    expect(show(<Markdown text={"<script>alert(1)</script>\n\nHi <b>there</b>"} />).textContent).toContain("<script>alert(1)</script>");
    expect(root.querySelector("script, b")).toBeNull();
  });
  test("an image is a link, a dangerous link is its words", () => {
    show(<Markdown text={"![chart](https://x.example/a.png) [do](javascript:alert(1))"} />);
    expect(root.querySelector("img")).toBeNull();
    expect([...root.querySelectorAll("a")].map((a) => a.textContent)).toEqual(["Image: chart"]);
    expect(root.textContent).toContain("do");
  });
  test("a link that looks like another address says where it goes", () => {
    show(<Markdown text={"[https://bank.example](https://evil.example/x) [here](https://a.example)"} />);
    expect(root.textContent).toBe("https://bank.example (evil.example) here");
    const link = root.querySelector("a")!;
    expect([link.target, link.rel]).toEqual(["_blank", "noopener noreferrer"]);
  });
  test("lists, tables, code and quotes", () => {
    show(<Markdown text={"- [x] a\n- b\n\n3. c\n\n|h|\n|:-:|\n|d|\n\n```py\nx < 1\n```\n\n> q *e* `c&amp;`"} />);
    expect(root.querySelectorAll("ul li")).toHaveLength(2);
    expect(root.querySelector("ol")!.getAttribute("start")).toBe("3");
    expect(root.querySelector("td")!.textContent).toBe("d");
    expect(root.querySelector(".code-block .plain-text")!.textContent).toBe("x < 1");
    expect(root.querySelector("blockquote code")!.textContent).toBe("c&amp;");
  });
  test("a stream is drawn now and then, its end at once", () => {
    vi.useFakeTimers();
    show(<Markdown text="a" streaming />);
    show(<Markdown text="ab" streaming />);
    show(<Markdown text="abc" streaming />);
    expect(root.textContent).toBe("a");
    act(() => void vi.advanceTimersByTime(100));
    expect(root.textContent).toBe("abc");
    show(<Markdown text="abcd" streaming />);
    show(<Markdown text="abcd!" />);
    expect(root.textContent).toBe("abcd!");
  });
  test("a text that begins anew is not mixed with the old one", () => {
    vi.useFakeTimers();
    show(<Markdown text="first" streaming />);
    show(<Markdown text="second" streaming />);
    expect(root.textContent).toBe("second");
  });
  test("a huge text is plain, and in parts", () => {
    show(<Markdown text={"**x** ".repeat(MAX_MARKDOWN)} />);
    expect(root.querySelector("strong")).toBeNull();
    expect(root.textContent!.length).toBeLessThan(2 * SLICE);
  });
});

describe("plain text", () => {
  test("a line of 10 MB shows its beginning, more on demand", () => {
    show(<PlainText text={"x".repeat(10_000_000)} />);
    const shown = (): number => root.querySelector(".plain-text")!.textContent!.length;
    expect(shown()).toBe(SLICE);
    act(() => root.querySelector<HTMLButtonElement>(".plain-more button")!.click());
    expect(shown()).toBe(2 * SLICE);
    expect(root.textContent).toContain("9,960,000 more characters");
  });
  test("is whole when it is short, and nothing in it is markup", () => {
    show(<PlainText text={"<b>\u001b[1m\n&amp;"} />);
    expect(root.querySelector(".plain-text")!.textContent).toBe("<b>[U+001B][1m\n&amp;");
    show(<PlainText ansi="strip" text={"\u001b[1mok\u001b[0m"} />);
    expect(root.querySelector(".plain-text")!.textContent).toBe("ok");
  });
  test("slices lose nothing", () => {
    const text = "\ud83d\ude80".repeat(SLICE);
    show(<PlainText text={text} />);
    for (let click = 0; click < 3; click++) act(() => root.querySelector<HTMLButtonElement>(".plain-more button")?.click());
    expect(root.querySelector(".plain-text")!.textContent).toBe(text);
  });
});
