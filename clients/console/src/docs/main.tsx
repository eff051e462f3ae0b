import { render } from "preact";

import "../styles/tokens.css";
import "../styles/app.css";
import "../styles/text.css";
import "./docs.css";
import { DocsPage } from "./page.jsx";

render(<DocsPage source={new URL("v1/asyncapi", document.baseURI)} />, document.getElementById("app")!);
