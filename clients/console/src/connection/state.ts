/** The page's one client, the token it uses, and what the page knows of the connection. */

import { connect, MidstreamError, type Client, type ConnectionState } from "@midstream/client";
import { signal } from "@preact/signals";

const TOKEN = "midstream.token";

/** Where the server is: beside this page, whatever prefix it is mounted at. */
export const base = (): URL => new URL(".", document.baseURI);

let token: string | undefined = readToken();

function readToken(): string | undefined {
  try {
    return sessionStorage.getItem(TOKEN) ?? undefined;
  } catch {
    return undefined;
  }
}

const open = (): Client => connect({ url: base(), getToken: () => token });

export const client = signal<Client>(open());
export const connection = signal<ConnectionState>(client.value.connection);
export const online = signal(navigator.onLine);

let unfollow = follow(client.value);

function follow(of: Client): () => void {
  of.ready.catch(() => undefined);
  connection.value = of.connection;
  return of.subscribe(() => {
    connection.value = of.connection;
  });
}

addEventListener("online", () => (online.value = true));
addEventListener("offline", () => (online.value = false));

/** A new client with this token, kept for as long as the tab. */
export const useToken = (value: string): void => {
  token = value;
  try {
    sessionStorage.setItem(TOKEN, value);
  } catch {
    // Without storage it is asked for again after a reload.
  }
  restart();
};

/** Begin again with a new client: after a refusal that a person has done something about. */
export const restart = (): void => {
  unfollow();
  client.value.close();
  client.value = open();
  unfollow = follow(client.value);
};

/** The `Authorization` of a request that the client has no function for. */
export const authorization = (): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };

/** Whether the server wants another token than it was given. */
export const wantsToken = (state: ConnectionState): boolean =>
  state.status === "closed" && state.error instanceof MidstreamError && state.error.code === "unauthorized";

/** Whether a token was given that the server did not take. */
export const tokenWasRefused = (): boolean => token !== undefined;
