/** The protocol, rendered from the server's own AsyncAPI document. */

import { memo } from "preact/compat";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { Markdown } from "../text/markdown.jsx";
import { CopyButton } from "../text/plain.jsx";
import { ThemeToggle } from "../theme.jsx";
import { matches, read, type Channel, type Field, type Group, type Message, type Pages, type Part, type Structure } from "./document.js";

export function DocsPage({ source }: { source: URL }) {
  const [pages, setPages] = useState<Pages>();
  const [problem, setProblem] = useState("");
  const load = async (): Promise<void> => {
    setProblem("");
    try {
      const answer = await fetch(source);
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      setPages(read(await answer.json()));
    } catch (error) {
      setProblem(`The document cannot be loaded from ${source.pathname} (${String(error)}).`);
    }
  };
  useEffect(() => void load(), []);
  return (
    <div class="frame">
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <header class="header">
        <a class="brand" href="./">
          Midstream
        </a>
        <nav class="nav" aria-label="Pages">
          <a href="./">Console</a>
          <a href="./docs" aria-current="page">
            Protocol
          </a>
        </nav>
        <ThemeToggle />
      </header>
      {pages !== undefined ? (
        <Content pages={pages} source={source} />
      ) : (
        <main class="page docs-wait" id="content" tabIndex={-1}>
          {problem === "" ? (
            <p role="status">Loading the protocol…</p>
          ) : (
            <div role="alert">
              <p class="problem">{problem}</p>
              <button type="button" onClick={() => void load()}>
                Try again
              </button>
            </div>
          )}
        </main>
      )}
    </div>
  );
}

function Content({ pages, source }: { pages: Pages; source: URL }) {
  const [query, setQuery] = useState("");
  const [listed, setListed] = useState(false);
  const main = useRef<HTMLElement>(null);

  useEffect(() => {
    const follow = (): void => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target === null) return;
      setListed(false);
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    };
    // The page is made after the browser looked for the link's place.
    follow();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);

  const groups = useMemo(
    () => pages.groups.map((group) => ({ ...group, messages: group.messages.filter((each) => matches(each, query)) })),
    [pages, query],
  );
  const structures = useMemo(
    () => pages.structures.filter((each) => matches({ ...each, summary: each.description }, query)),
    [pages, query],
  );
  const found = structures.length + groups.reduce((sum, { messages }) => sum + messages.length, 0);

  return (
    <div class="docs">
      <nav class="docs-nav" aria-label="Contents">
        <div class="docs-search">
          <label class="visually-hidden" for="docs-query">
            Search messages, fields and structures
          </label>
          <input
            id="docs-query"
            type="search"
            placeholder="Search messages and fields"
            autocomplete="off"
            value={query}
            onInput={(event) => {
              setQuery(event.currentTarget.value);
              setListed(true);
            }}
          />
          <button
            type="button"
            class="docs-menu"
            aria-expanded={listed}
            aria-controls="docs-contents"
            onClick={() => setListed(!listed)}
          >
            Contents
          </button>
        </div>
        <p class="visually-hidden" role="status">
          {query === "" ? "" : `${found} found`}
        </p>
        <div id="docs-contents" class={listed ? "docs-contents listed" : "docs-contents"}>
          {query === "" && <Links title="Channels" place="channels" items={pages.channels} />}
          {groups.map((group) => (
            <Links key={group.place} title={group.title} place={group.place} items={group.messages} code />
          ))}
          <Links title="Structures" place="structures" items={structures} code />
          {found === 0 && <p class="muted docs-none">Nothing has these words in its name, its summary or its fields.</p>}
        </div>
      </nav>
      <main class="page" id="content" ref={main} tabIndex={-1}>
        <div class="column docs-column">
          <section class="card docs-intro">
            <h1>
              {pages.title} {pages.version}
            </h1>
            <Markdown text={pages.description} />
            <p class="small">
              <a href={source.href}>The AsyncAPI document</a>{" · "}
              <a href={new URL("schema", source).href}>JSON Schema</a>
            </p>
          </section>
          <Channels channels={pages.channels} />
          {pages.groups.map((group) => (
            <GroupSection key={group.place} group={group} />
          ))}
          <Structures structures={pages.structures} />
        </div>
      </main>
    </div>
  );
}

interface Linked {
  readonly place: string;
  readonly title: string;
}

function Links({ title, place, items, code }: { title: string; place: string; items: readonly Linked[]; code?: true }) {
  if (items.length === 0) return null;
  return (
    <>
      <a class="docs-part" href={`#${place}`}>
        {title}
      </a>
      <ul>
        {items.map((item) => (
          <li key={item.place}>
            <a href={`#${item.place}`}>{code === true ? <code>{item.title}</code> : item.title}</a>
          </li>
        ))}
      </ul>
    </>
  );
}

const Channels = memo(({ channels }: { channels: readonly Channel[] }) => (
  <section aria-labelledby="channels">
    <h2 id="channels" tabIndex={-1}>
      Channels
    </h2>
    {channels.map((channel) => (
      <article class="card" key={channel.place}>
        <Heading place={channel.place}>{channel.title}</Heading>
        {channel.address !== "" && (
          <p>
            <code>{channel.address}</code>
          </p>
        )}
        <Markdown text={`${channel.summary} ${channel.description}`} />
        <p class="small muted">
          {[
            channel.toServer > 0 ? `${channel.toServer} kinds of messages to the server` : "",
            channel.fromServer > 0 ? `${channel.fromServer} from it` : "",
          ]
            .filter((words) => words !== "")
            .join(", ")}
        </p>
        <Fields fields={channel.query} label={`Query of ${channel.title}`} />
      </article>
    ))}
  </section>
));

const GroupSection = memo(({ group }: { group: Group }) => (
  <section aria-labelledby={group.place}>
    <h2 id={group.place} tabIndex={-1}>
      {group.title}
    </h2>
    <p class="muted">{group.about}</p>
    {group.envelope.length > 0 && (
      <details class="docs-envelope">
        <summary>
          The envelope: what each has beside <code>type</code> and <code>payload</code>
        </summary>
        <Fields fields={group.envelope} label={`Envelope of ${group.title}`} />
      </details>
    )}
    {group.messages.map((message) => (
      <MessageCard key={message.place} message={message} />
    ))}
  </section>
));

function MessageCard({ message }: { message: Message }) {
  return (
    <article class="card">
      <Heading place={message.place}>
        <code>{message.title}</code>
      </Heading>
      <Markdown text={message.description} />
      {message.answeredBy !== "" && (
        <p class="small muted">
          Answered by <a href={`#message.${message.answeredBy}`}>{message.answeredBy}</a>
        </p>
      )}
      <Fields fields={message.fields} label={`Fields of ${message.title}`} />
      {message.examples.map((example, index) => (
        <figure key={index} class="code-block">
          <figcaption class="code-head">
            <span>Example</span>
            <CopyButton text={example} />
          </figcaption>
          <pre class="docs-example" tabIndex={0} aria-label={`Example of ${message.title}`}>
            {example}
          </pre>
        </figure>
      ))}
    </article>
  );
}

const Structures = memo(({ structures }: { structures: readonly Structure[] }) => (
  <section aria-labelledby="structures">
    <h2 id="structures" tabIndex={-1}>
      Structures
    </h2>
    <p class="muted">What several messages have in them.</p>
    {structures.map((structure) => (
      <article class="card" key={structure.place}>
        <Heading place={structure.place}>
          <code>{structure.title}</code>
        </Heading>
        {structure.description !== "" && <Markdown text={structure.description} />}
        {structure.type.length > 0 && (
          <p class="docs-type">
            <Type parts={structure.type} />
          </p>
        )}
        <Fields fields={structure.fields} label={`Fields of ${structure.title}`} />
      </article>
    ))}
  </section>
));

/** A heading that can be linked to, with its link. */
function Heading({ place, children }: { place: string; children: preact.ComponentChildren }) {
  return (
    <h3 id={place} tabIndex={-1} class="docs-heading">
      <a href={`#${place}`}>{children}</a>
    </h3>
  );
}

function Fields({ fields, label }: { fields: readonly Field[]; label: string }) {
  if (fields.length === 0) return null;
  const described = fields.some(({ description }) => description !== "");
  return (
    <div class="table-scroll" tabIndex={0} role="group" aria-label={label}>
      <table class="docs-fields">
        <thead>
          <tr>
            <th scope="col">Field</th>
            <th scope="col">Type</th>
            {described && <th scope="col">Meaning</th>}
          </tr>
        </thead>
        <tbody>
          {fields.map((field) => (
            <tr key={field.name}>
              <th scope="row">
                <code>{field.name}</code>
                {field.required ? "" : <span class="muted"> optional</span>}
              </th>
              <td class="docs-type">
                <Type parts={field.type} />
              </td>
              {described && (
                <td>
                  <Markdown text={field.description} />
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const Type = ({ parts }: { parts: readonly Part[] }) => (
  <>
    {parts.map((part, index) =>
      part.place === undefined ? (
        part.text
      ) : (
        <a key={index} href={`#${part.place}`}>
          {part.text}
        </a>
      ),
    )}
  </>
);
