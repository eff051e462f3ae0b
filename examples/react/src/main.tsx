import { connect } from "@midstream/client";
import { MidstreamProvider } from "@midstream/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { pickColor } from "./color";

// Made once, outside of components. Its tools are offered to every run that this page starts or attaches.
const client = connect({ url: "/agents", tools: { pick_color: pickColor } });

createRoot(document.querySelector("#app")!).render(
  <StrictMode>
    <MidstreamProvider client={client}>
      <App />
    </MidstreamProvider>
  </StrictMode>,
);
