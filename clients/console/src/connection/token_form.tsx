import { useEffect, useRef } from "preact/hooks";

import { tokenWasRefused, useToken } from "./state.js";

/** Asks for the bearer token of a server that wants one. It stays in this tab. */
export function TokenForm() {
  const field = useRef<HTMLInputElement>(null);
  // `autofocus` counts when a page is loaded, not when the form comes again after a refusal.
  useEffect(() => field.current?.focus(), []);
  const submit = (event: Event): void => {
    event.preventDefault();
    const value = field.current?.value.trim() ?? "";
    if (value !== "") useToken(value);
  };
  return (
    <main class="page" id="main">
      <div class="column">
        <form class="card start-form token-form" onSubmit={submit}>
          <h1>This server wants a token</h1>
          <p class="muted">
            {tokenWasRefused()
              ? "The server did not take the token it was given. It may have expired."
              : "Enter the token that its operator gave you. It is kept in this tab only."}
          </p>
          <label class="field">
            Token
            <input ref={field} type="password" autocomplete="off" spellcheck={false} required />
          </label>
          <div class="row">
            <button type="submit" class="primary">
              Connect
            </button>
          </div>
        </form>
      </div>
    </main>
  );
}
