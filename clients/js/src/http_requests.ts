/** Requests to a Midstream server, and what their answers mean to a link. */

import type { Where } from "./link.js";
import type { Receipt } from "./protocol.js";

/** For any answer that is no stream, and the head of one that is; the server itself answers a command within 10 s. */
export const ANSWER_MS = 30_000;

export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  /** Its JSON; undefined if it is none. */
  readonly body: any;
}

export interface Refusal {
  code: string;
  text: string;
  errors?: NonNullable<Receipt["errors"]>;
  resolution?: NonNullable<Receipt["resolution"]>;
  retryable?: boolean;
}

export interface Asked {
  body?: string;
  /** The Idempotency-Key. */
  key?: string;
  /** That the token is not valid is an answer, and not the end. */
  refusable?: boolean;
}

/** The end of a link, with its close code. */
export class Closing extends Error {
  readonly code: number;

  constructor(code: number, reason: string) {
    super(reason);
    this.code = code;
  }
}

/** The reason of a close that says when to come back. */
export const comeBack = (seconds: number): string => JSON.stringify({ reconnect_in_s: seconds });

export function refusalOf({ status, body }: Answered): Refusal {
  const error = body?.error;
  if (typeof error?.code === "string") return { ...error, text: String(error.text ?? error.code) };
  const code = ({ 403: "forbidden", 404: "not_found", 413: "too_large", 429: "rate_limited" } as const)[status];
  return { code: code ?? "invalid", text: `the server's answer is ${status}, and no Midstream answer` };
}

/** Whether it can be taken for the answer to what was asked, and not for a failure on the way. */
export const answers = ({ status, body }: Answered): boolean =>
  typeof body?.error?.code === "string" || (status >= 400 && status < 500 && status !== 408 && status !== 425);

/** What an answer that is none says of the server. */
export function closingOf(answer: Answered): Closing {
  const { status, headers } = answer;
  const { text } = refusalOf(answer);
  if (status === 403) return new Closing(4503, text);
  const wait = Number(headers.get("retry-after") ?? Number.NaN);
  const told = wait >= 0 ? comeBack(wait) : text;
  if (status === 503) return new Closing(4001, told);
  if (status === 429 || status === 408 || status === 425) return new Closing(4013, told);
  return new Closing(status >= 400 && status < 500 ? 4501 : 1006, text);
}

export function createRequests({ url, token, environment: { fetch, after } }: Where) {
  const asking = new Set<AbortController>();
  let over = false;

  async function request(
    method: string,
    path: string,
    init: RequestInit,
    more: Record<string, string>,
  ): Promise<Response> {
    if (!fetch) throw new Closing(4501, "there is no fetch here: give one to connect");
    // What was waiting when it was closed.
    if (over) throw new Closing(1006, "closed");
    const headers = requests.token === undefined ? more : { ...more, authorization: `Bearer ${requests.token}` };
    return fetch(new URL(path, url), { ...init, method, headers, cache: "no-store" });
  }

  function patiently<Result>(abort: AbortController, answer: Promise<Result>): Promise<Result> {
    const late = after(ANSWER_MS, () => abort.abort(new Closing(1006, `no answer within ${ANSWER_MS / 1000} s`)));
    return answer.finally(late);
  }

  async function read(response: Response, refusable = false): Promise<Answered> {
    const text = await response.text();
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch {
      // Nothing, or somebody else's page.
    }
    const answer = { status: response.status, headers: response.headers, body };
    if (response.status === 401 && !refusable) throw new Closing(4500, refusalOf(answer).text);
    return answer;
  }

  const requests = {
    /** Sent with every request. */
    token,
    read,

    /** Throws `Closing` when the token is not valid or no answer comes. */
    async ask(method: string, path: string, { body, key, refusable }: Asked = {}): Promise<Answered> {
      const headers: Record<string, string> = { accept: "application/json" };
      if (body !== undefined) headers["content-type"] = "application/json";
      if (key !== undefined) headers["idempotency-key"] = key;
      const abort = new AbortController();
      asking.add(abort);
      try {
        const init = { signal: abort.signal, ...(body === undefined ? {} : { body }) };
        const response = request(method, path, init, headers);
        return await patiently(
          abort,
          response.then((answer) => read(answer, refusable)),
        );
      } finally {
        asking.delete(abort);
      }
    },

    /** The head of a stream; `abort` ends it at any time. */
    open: (path: string, abort: AbortController): Promise<Response> =>
      patiently(abort, request("GET", path, { signal: abort.signal }, { accept: "text/event-stream" })),

    close(): void {
      over = true;
      for (const abort of asking) abort.abort();
    },
  };
  return requests;
}

export type Requests = ReturnType<typeof createRequests>;
