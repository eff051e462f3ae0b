/**
 * Markdown as elements. There is no HTML on the way: tokens become elements of a fixed set, so markup in a text can
 * only ever be shown, and there is nothing to sanitise afterwards.
 */

import type { Token, Tokens } from "marked";
import type { ComponentChild, ComponentChildren } from "preact";
import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";

import { MAX_MARKDOWN, NO_BLOCKS, nextBlocks, type Blocks } from "./blocks.js";
import { decoded } from "./entities.js";
import { CopyButton, PlainText } from "./plain.jsx";
import { safeHref, safeInline, visibleProse } from "./safe.js";

/** Lists in quotes in lists: deeper than this is shown as it was written. */
const MAX_DEPTH = 12;

/** While a text streams it is read again at most this often. */
const STREAM_MS = 80;

const words = (text: string): string => visibleProse(decoded(text));

function Link({ href, text, children }: { href: string; text: string; children: ComponentChildren }) {
  const address = safeHref(decoded(href));
  if (address === undefined) return <>{children}</>;
  const host = address.startsWith("mailto:") ? address.slice(7) : new URL(address).host;
  // A link whose words look like another address says where it goes.
  const misleads = /[a-z0-9]\.[a-z]{2}/i.test(text) && !text.toLowerCase().includes(host.toLowerCase());
  return (
    <>
      <a href={address} target="_blank" rel="noopener noreferrer">
        {children}
      </a>
      {misleads && <span class="link-host"> ({safeInline(host, 80)})</span>}
    </>
  );
}

const inline = (tokens: readonly Token[] | undefined, depth: number): ComponentChild[] =>
  (tokens ?? []).map((token) => one(token, depth));

const one = (token: Token, depth: number): ComponentChild => {
  if (depth > MAX_DEPTH) return visibleProse(token.raw);
  const within = (): ComponentChild[] => inline((token as { tokens?: Token[] }).tokens, depth + 1);
  switch (token.type) {
    case "text":
      return (token as Tokens.Text).tokens ? within() : words(token.text);
    case "escape":
      return visibleProse(token.text);
    case "strong":
      return <strong>{within()}</strong>;
    case "em":
      return <em>{within()}</em>;
    case "del":
      return <del>{within()}</del>;
    case "codespan":
      return <code>{visibleProse(token.text)}</code>;
    case "br":
      return <br />;
    case "link":
      return (
        <Link href={token.href} text={token.text}>
          {within()}
        </Link>
      );
    case "image":
      return (
        <Link href={token.href} text="">
          {`Image: ${words(token.text || token.href)}`}
        </Link>
      );
    case "checkbox":
      return <span class="checkbox">{(token as Tokens.Checkbox).checked ? "\u2611 " : "\u2610 "}</span>;
    default:
      return block(token, depth);
  }
};

const HEADINGS = ["h3", "h4", "h5", "h6", "h6", "h6"] as const;

const block = (token: Token, depth: number): ComponentChild => {
  if (depth > MAX_DEPTH) return visibleProse(token.raw);
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "paragraph":
      return <p dir="auto">{inline(token.tokens, depth)}</p>;
    case "heading": {
      // The page has its own first and second heading.
      const Heading = HEADINGS[(token as Tokens.Heading).depth - 1] ?? "h6";
      return <Heading dir="auto">{inline(token.tokens, depth)}</Heading>;
    }
    case "code":
      return (
        <div class="code-block">
          <div class="code-head">
            <span>{safeInline((token as Tokens.Code).lang ?? "", 40)}</span>
            <CopyButton text={token.text} />
          </div>
          <PlainText text={token.text} class="code" />
        </div>
      );
    case "blockquote":
      return <blockquote dir="auto">{(token.tokens ?? []).map((inner) => block(inner, depth + 1))}</blockquote>;
    case "list": {
      const list = token as Tokens.List;
      const items = list.items.map((item, index) => (
        <li key={index} dir="auto">
          {inline(item.tokens, depth + 1)}
        </li>
      ));
      return list.ordered ? <ol start={Number(list.start) || 1}>{items}</ol> : <ul>{items}</ul>;
    }
    case "table": {
      const table = token as Tokens.Table;
      const cell = (Cell: "th" | "td", content: Tokens.TableCell, key: number): ComponentChild => (
        <Cell key={key} class={content.align ? `align-${content.align}` : ""} dir="auto">
          {inline(content.tokens, depth + 1)}
        </Cell>
      );
      return (
        <div class="table-scroll" tabIndex={0} role="group" aria-label="Table">
          <table>
            <thead>
              <tr>{table.header.map((content, index) => cell("th", content, index))}</tr>
            </thead>
            <tbody>
              {table.rows.map((row, index) => (
                <tr key={index}>{row.map((content, column) => cell("td", content, column))}</tr>
              ))}
            </tbody>
          </table>
        </div>
      );
    }
    case "hr":
      return <hr />;
    case "html":
      // Markup is text like any other.
      return token["block"] ? <p dir="auto">{visibleProse(token.raw.trimEnd())}</p> : visibleProse(token.raw);
    case "plain":
      return <PlainText text={token.raw} />;
    case "text":
      return depth === 0 ? <p dir="auto">{one(token, depth)}</p> : one(token, depth);
    default:
      return visibleProse(token.raw);
  }
};

const Block = memo(({ token }: { token: Token }) => <>{block(token, 0)}</>);

/** What was shown last, at most every `STREAM_MS` while it streams; at once when it is complete. */
const useCalm = (text: string, streaming: boolean): string => {
  const [shown, setShown] = useState(text);
  const latest = useRef(text);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  latest.current = text;
  useEffect(() => {
    if (!streaming || timer.current !== undefined) return;
    timer.current = setTimeout(() => {
      timer.current = undefined;
      setShown(latest.current);
    }, STREAM_MS);
  }, [text, streaming]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return streaming && text.startsWith(shown) ? shown : text;
};

export interface MarkdownProps {
  text: string;
  /** More text is coming. */
  streaming?: boolean;
}

/** A message of a model. Over `MAX_MARKDOWN` it is shown as plain text, in parts. */
export const Markdown = memo(({ text, streaming = false }: MarkdownProps) => {
  const shown = useCalm(text, streaming);
  const blocks = useRef<Blocks>(NO_BLOCKS);
  if (shown.length > MAX_MARKDOWN) return <PlainText text={shown} />;
  blocks.current = nextBlocks(blocks.current, shown, !streaming);
  const { tokens } = blocks.current;
  return (
    <div class="markdown">
      {tokens.map((token, index) => (
        <Block key={index} token={token} />
      ))}
    </div>
  );
});
