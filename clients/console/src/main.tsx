import "./styles/tokens.css";
import "./styles/app.css";
import "./styles/text.css";
import "./styles/timeline.css";

import { render } from "preact";

import { App } from "./app.js";

render(<App />, document.getElementById("app")!);
