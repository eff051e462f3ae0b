/** What a transport is to the client: text frames both ways, and an end. All transports look the same here. */

import type { Environment } from "./environment.js";

export interface LinkEvents {
  /** The other side is there; its `connection.ready` follows as the first frame. */
  opened(): void;
  frame(text: string): void;
  /** Once, at the end, also of a link that never opened (1006). Not after `close()`. */
  closed(code: number, reason: string): void;
}

export interface Link {
  send(text: string): void;
  /** Nothing is said any more after this. */
  close(code: number): void;
}

export interface Where {
  /** http(s), the path ending in a slash: the server or its mount prefix. */
  readonly url: URL;
  readonly clientId: string;
  readonly token: string | undefined;
  readonly environment: Environment;
}

/** Calls no event before it has returned. */
export type OpenLink = (events: LinkEvents, where: Where) => Link;
