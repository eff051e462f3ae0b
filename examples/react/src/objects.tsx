import { type ObjectProps, type Renderers, useRun } from "@midstream/client/react";
import { colorOf } from "./color";

interface TableData {
  title: string;
  columns: string[];
  rows: string[][];
}

function Table({ data: { title, columns, rows } }: ObjectProps<TableData>) {
  return (
    <table>
      <caption>{title}</caption>
      <thead>
        <tr>{columns.map((column) => <th key={column}>{column}</th>)}</tr>
      </thead>
      <tbody>
        {rows.map((row, at) => <tr key={at}>{row.map((cell, place) => <td key={place}>{cell}</td>)}</tr>)}
      </tbody>
    </table>
  );
}

interface PosterData {
  heading: string;
  when: string;
  lines: string[];
}

function Poster({ data: { heading, when, lines }, run }: ObjectProps<PosterData>) {
  const color = useRun(run, ({ view }) => colorOf(view));
  return (
    <figure className="poster" style={{ background: color }}>
      <h3>{heading}</h3>
      <p>{when}</p>
      <ul>{lines.map((line) => <li key={line}>{line}</li>)}</ul>
    </figure>
  );
}

/** What draws which kind of object. A tool that shows another kind needs one line here. */
export const RENDERERS: Renderers = { table: Table, poster: Poster };

/** For kinds that this page does not know, and for data that a renderer could not draw. */
export function Unknown({ object, error }: ObjectProps) {
  return (
    <details>
      <summary>{error ? `${object.kind} could not be shown` : object.kind}</summary>
      <pre>{JSON.stringify(object.data, null, 2)}</pre>
    </details>
  );
}
