/** A WebSocket as a link. */

import { MidstreamError } from "./errors.js";
import type { OpenLink } from "./link.js";
import { CLOSE } from "./protocol.js";

const SUBPROTOCOL = "midstream.v1.json";
const LOST = 1006;
/** What a browser lets an application close with, apart from 1000. The server does not tell them apart. */
const DROPPED = 4000;

export const openWebSocket: OpenLink = (events, { url, clientId, token, environment: { WebSocket } }) => {
  if (!WebSocket) throw new MidstreamError("no_transport", "there is no WebSocket here: give one to connect");
  const address = new URL("v1/ws", url);
  address.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  address.searchParams.set("client_id", clientId);
  // The one way a browser has to send a token with a WebSocket; never in the URL, which is logged.
  const protocols = token ? [SUBPROTOCOL, `bearer.${base64url(token)}`] : [SUBPROTOCOL];
  const socket = new WebSocket(address.href, protocols);
  let failure = "";
  socket.onopen = () => events.opened();
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") return events.frame(data);
    // Binary was not asked for: it reads as no frame.
    events.frame("");
  };
  socket.onerror = (event) => {
    if (typeof event?.message === "string") failure = event.message;
  };
  socket.onclose = ({ code, reason }) => events.closed(code || LOST, reason || failure);
  return {
    send: (text) => socket.send(text),
    close(code) {
      // A handler must stay: `ws` throws an error that nobody hears.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {};
      if (code === CLOSE.done) socket.close(code);
      // `ws` would hold the program while it waits for an answer of a server that does not answer.
      else if (socket.terminate) socket.terminate();
      else socket.close(DROPPED);
    },
  };
};

function base64url(text: string): string {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
