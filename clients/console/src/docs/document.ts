/** The AsyncAPI document, read into what the page shows: channels, messages with their fields, and shared structures. */

export interface Schema {
  readonly $ref?: string;
  readonly title?: string;
  readonly description?: string;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly pattern?: string;
  readonly format?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly required?: readonly string[];
}

interface Reference {
  readonly $ref: string;
}

/** As much of AsyncAPI 3 as the server's document uses. */
export interface AsyncApi {
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly channels: Readonly<
    Record<
      string,
      {
        readonly address: string | null;
        readonly title: string;
        readonly summary: string;
        readonly description?: string;
        readonly messages: Readonly<Record<string, Reference>>;
      }
    >
  >;
  readonly operations: Readonly<
    Record<
      string,
      {
        readonly action: "send" | "receive";
        readonly channel: Reference;
        readonly messages: readonly Reference[];
        readonly reply?: { readonly messages: readonly Reference[] };
        readonly bindings?: { readonly http?: { readonly method: string; readonly query?: Schema } };
      }
    >
  >;
  readonly components: {
    readonly messages: Readonly<
      Record<
        string,
        {
          readonly name: string;
          readonly title: string;
          readonly summary?: string;
          readonly description?: string;
          readonly tags: readonly { readonly name: string }[];
          readonly payload: Schema;
          readonly examples?: readonly { readonly payload: unknown }[];
        }
      >
    >;
    readonly schemas: Readonly<Record<string, Schema>>;
    readonly securitySchemes: Readonly<Record<string, { readonly description?: string }>>;
  };
}

/** A piece of a type: words, or a structure with its place on the page. */
export interface Part {
  readonly text: string;
  readonly place?: string;
}

export interface Field {
  readonly name: string;
  readonly required: boolean;
  readonly type: readonly Part[];
  readonly description: string;
}

export interface Message {
  readonly place: string;
  readonly title: string;
  readonly summary: string;
  readonly description: string;
  readonly answeredBy: string;
  /** Of the payload where there is an envelope around one, else of the whole. */
  readonly fields: readonly Field[];
  readonly examples: readonly string[];
}

export interface Channel {
  readonly place: string;
  readonly title: string;
  /** Method and path; empty where the address is the receiver's own. */
  readonly address: string;
  readonly summary: string;
  readonly description: string;
  readonly query: readonly Field[];
  /** How many messages each side sends here. */
  readonly toServer: number;
  readonly fromServer: number;
}

export interface Structure {
  readonly place: string;
  readonly title: string;
  readonly description: string;
  readonly fields: readonly Field[];
  /** What it is where it has no fields: one of several. */
  readonly type: readonly Part[];
}

export interface Group {
  readonly place: string;
  readonly title: string;
  readonly about: string;
  readonly envelope: readonly Field[];
  readonly messages: readonly Message[];
}

export interface Pages {
  readonly title: string;
  readonly version: string;
  readonly description: string;
  readonly channels: readonly Channel[];
  readonly groups: readonly Group[];
  readonly structures: readonly Structure[];
}

const GROUPS = [
  ["command", "Commands", "From a client to the server. Every one is answered by exactly one receipt."],
  ["frame", "Frames", "What the connection itself says. They are in no log and have no number."],
  ["event", "Events", "What happened in a run, numbered without holes, the same text on every transport."],
  ["http", "Starting by HTTP", "A run without a connection: one request, one answer."],
  ["webhook", "Webhooks", "Some events, sent by the server to a receiver of yours as signed HTTP requests."],
] as const;

const last = (reference: string): string => reference.slice(reference.lastIndexOf("/") + 1);

/** Read a document. Throws nothing for parts that it does not know; they are left out. */
export const read = (api: AsyncApi): Pages => {
  const schemas = new Map(Object.entries(api.components.schemas));
  const messages = Object.entries(api.components.messages);

  /** The payload inside an envelope, by the name of its structure. */
  const inner = (payload: Schema): { envelope?: Schema; payload?: string } => {
    const envelope = payload.$ref === undefined ? undefined : schemas.get(last(payload.$ref));
    const within = envelope?.properties?.["payload"]?.$ref;
    return envelope !== undefined && within !== undefined ? { envelope, payload: last(within) } : {};
  };

  const placeOf = new Map<string, string>();
  const envelopes = new Set<string>();
  for (const [key, { payload }] of messages) {
    const found = inner(payload);
    if (found.payload === undefined) continue;
    placeOf.set(found.payload, `message.${key}`);
    if (payload.$ref !== undefined) {
      envelopes.add(last(payload.$ref));
      placeOf.set(last(payload.$ref), `message.${key}`);
    }
  }

  const typeOf = (schema: Schema): readonly Part[] => {
    if (schema.$ref !== undefined) {
      const name = last(schema.$ref);
      return [{ text: name, place: placeOf.get(name) ?? `schema.${name}` }];
    }
    if (schema.const !== undefined) return [{ text: JSON.stringify(schema.const) }];
    if (schema.enum !== undefined) return [{ text: schema.enum.map((value) => JSON.stringify(value)).join(" | ") }];
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices !== undefined && schema.type === undefined) {
      return choices.flatMap((choice, index) => [...(index > 0 ? [{ text: " | " }] : []), ...typeOf(choice)]);
    }
    if (schema.type === "array") return [{ text: "list of " }, ...typeOf(schema.items ?? {}), ...limits(schema)];
    const entries = schema.additionalProperties;
    if (schema.type === "object" && typeof entries === "object" && schema.properties === undefined) {
      return [{ text: "map of text to " }, ...typeOf(entries)];
    }
    return [{ text: schema.type === undefined ? "any JSON" : [schema.type].flat().join(" | ") }, ...limits(schema)];
  };

  const fieldsOf = (schema: Schema | undefined): readonly Field[] =>
    Object.entries(schema?.properties ?? {}).map(([name, field]) => ({
      name,
      required: schema?.required?.includes(name) ?? false,
      type: typeOf(field),
      description: field.description ?? "",
    }));

  const answers = new Map<string, string>();
  for (const { messages: asked, reply } of Object.values(api.operations)) {
    const [answer] = reply?.messages ?? [];
    if (answer !== undefined && asked.length === 1) answers.set(last(asked[0]!.$ref), last(answer.$ref));
  }

  const messageOf = (key: string): Message => {
    const message = api.components.messages[key]!;
    const { payload } = inner(message.payload);
    const parts = [message.payload, ...(message.payload.allOf ?? [])];
    const whole = payload === undefined ? parts.map(resolved).flatMap(fieldsOf) : fieldsOf(schemas.get(payload));
    return {
      place: `message.${key}`,
      title: message.name,
      summary: message.summary ?? "",
      description: message.description ?? message.summary ?? "",
      answeredBy: answers.get(key) ?? "",
      // A later part says more of a field that an earlier one has.
      fields: [...new Map(whole.map((field) => [field.name, field])).values()],
      examples: (message.examples ?? []).map((example) => JSON.stringify(example.payload, null, 2)),
    };
  };
  const resolved = (schema: Schema): Schema | undefined =>
    schema.$ref === undefined ? schema : schemas.get(last(schema.$ref));

  const groups = GROUPS.map(([tag, title, about]): Group => {
    const members = messages.filter(([, { tags }]) => tags.some(({ name }) => name === tag));
    const envelope = members.map(([, { payload }]) => inner(payload).envelope).find((found) => found !== undefined);
    return {
      place: `group.${tag}`,
      title,
      about,
      envelope: fieldsOf(envelope).filter(({ name }) => name !== "payload" && name !== "type"),
      messages: members.map(([key]) => messageOf(key)),
    };
  });

  const channels = Object.entries(api.channels).map(([key, channel]): Channel => {
    const own = Object.values(api.operations).filter(({ channel: on }) => last(on.$ref) === key);
    const http = own.find(({ bindings }) => bindings?.http !== undefined)?.bindings?.http;
    const counted = (action: string): number =>
      new Set(own.filter((each) => each.action === action).flatMap((each) => each.messages.map(({ $ref }) => $ref)))
        .size;
    return {
      place: `channel.${key}`,
      title: channel.title,
      address: channel.address === null ? "" : `${http?.method ?? "GET"} ${channel.address}`,
      summary: channel.summary,
      description: channel.description ?? "",
      query: fieldsOf(http?.query),
      toServer: counted("receive"),
      fromServer: counted("send"),
    };
  });

  const structures = [...schemas]
    .filter(([name]) => !envelopes.has(name) && !placeOf.has(name))
    .map(([name, schema]): Structure => ({
      place: `schema.${name}`,
      title: name,
      description: schema.description ?? "",
      fields: fieldsOf(schema),
      type: schema.properties === undefined ? typeOf(schema) : [],
    }));

  const { title, version, description } = api.info;
  return { title, version, description, channels, groups, structures };
};

const ID = "^[A-Za-z0-9_-]{1,64}$";

const limits = (schema: Schema): readonly Part[] => {
  const { minimum, maximum, minLength, maxLength, minItems, maxItems, pattern } = schema;
  const said = [
    pattern === ID ? "an id" : pattern === undefined ? "" : `matches ${pattern}`,
    minimum === undefined ? "" : `at least ${minimum}`,
    maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? "" : `at most ${maximum}`,
    minLength === undefined ? "" : minLength === 1 ? "not empty" : `at least ${minLength} characters`,
    maxLength === undefined ? "" : `at most ${maxLength} characters`,
    minItems === undefined ? "" : minItems === 1 ? "not empty" : `at least ${minItems}`,
    maxItems === undefined ? "" : `at most ${maxItems}`,
    schema.default === undefined ? "" : `default ${JSON.stringify(schema.default)}`,
  ].filter((words) => words !== "");
  return said.length === 0 ? [] : [{ text: ` (${said.join(", ")})` }];
};

/** Whether what is looked for is in a name, a summary or a field's name. All words must be. */
export const matches = (
  { title, summary, fields }: { title: string; summary: string; fields: readonly Field[] },
  query: string,
): boolean => {
  const text = `${title} ${summary} ${fields.map(({ name }) => name).join(" ")}`.toLowerCase();
  return query
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
};
