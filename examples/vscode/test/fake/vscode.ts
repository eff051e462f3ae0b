/**
 * The part of the editor that the extension uses: real files, documents in memory, and dialogs that a test answers.
 * What was shown is in `shown`; `answer` decides what a person does with a dialog.
 */

import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join, posix } from "node:path";

export interface Dialog {
  readonly kind: "warning" | "information" | "error" | "input" | "pick";
  readonly text: string;
  readonly detail: string | undefined;
  readonly modal: boolean;
  readonly buttons: readonly string[];
}

/** What the person in front of the editor saw, and does. A test changes `answer`. */
export const person = {
  shown: [] as Dialog[],
  executed: [] as { command: string; args: readonly unknown[] }[],
  panels: [] as FakePanel[],
  bars: [] as StatusBarItem[],
  answer: (_dialog: Dialog): string | undefined | Promise<string | undefined> => undefined,
};

/** A workspace of its own for each test. */
export function reset(folder: string | undefined): void {
  person.shown = [];
  person.executed = [];
  person.panels = [];
  person.bars = [];
  person.answer = () => undefined;
  registered.clear();
  providers.clear();
  documents.clear();
  settings.clear();
  workspace.workspaceFolders = folder === undefined ? undefined : [{ uri: Uri.file(folder), name: "test", index: 0 }];
}

export const settings = new Map<string, unknown>();
const registered = new Map<string, (...args: unknown[]) => unknown>();
const providers = new Map<string, { provideTextDocumentContent(uri: Uri): string }>();
const documents = new Map<string, TextDocument>();

async function asked(dialog: Dialog): Promise<string | undefined> {
  person.shown.push(dialog);
  return person.answer(dialog);
}

export class Uri {
  readonly scheme: string;
  readonly path: string;
  readonly query: string;

  private constructor(scheme: string, path: string, query: string) {
    this.scheme = scheme;
    this.path = path;
    this.query = query;
  }

  static file(path: string): Uri {
    return new Uri("file", path, "");
  }

  static from({ scheme, path = "", query = "" }: { scheme: string; path?: string; query?: string }): Uri {
    return new Uri(scheme, path, query);
  }

  static joinPath(base: Uri, ...parts: string[]): Uri {
    return new Uri(base.scheme, posix.join(base.path, ...parts), base.query);
  }

  get fsPath(): string {
    return this.path;
  }

  toString(): string {
    return `${this.scheme}:${this.path}${this.query && `?${this.query}`}`;
  }
}

export class Position {
  readonly line: number;
  readonly character: number;

  constructor(line: number, character: number) {
    this.line = line;
    this.character = character;
  }
}

export class Range {
  readonly start: Position;
  readonly end: Position;

  constructor(start: Position, end: Position) {
    this.start = start;
    this.end = end;
  }
}

export class RelativePattern {
  readonly base: Uri;
  readonly pattern: string;

  constructor(base: Uri, pattern: string) {
    this.base = base;
    this.pattern = pattern;
  }
}

export const EndOfLine = { LF: 1, CRLF: 2 } as const;
export const FileType = { Unknown: 0, File: 1, Directory: 2, SymbolicLink: 64 } as const;
export const ViewColumn = { Beside: -2 } as const;
export const StatusBarAlignment = { Left: 1, Right: 2 } as const;

export class TextDocument {
  readonly uri: Uri;
  #text: string;
  isDirty = false;

  constructor(uri: Uri, text: string) {
    this.uri = uri;
    this.#text = text;
  }

  get eol(): number {
    return this.#text.includes("\r\n") ? EndOfLine.CRLF : EndOfLine.LF;
  }

  getText(): string {
    return this.#text;
  }

  positionAt(offset: number): Position {
    const before = this.#text.slice(0, offset).split("\n");
    return new Position(before.length - 1, before.at(-1)?.length ?? 0);
  }

  offsetAt({ line, character }: Position): number {
    const lines = this.#text.split("\n");
    return lines.slice(0, line).reduce((sum, each) => sum + each.length + 1, 0) + character;
  }

  /** As if a person typed it. */
  type(text: string): void {
    this.#text = text;
    this.isDirty = true;
  }

  async save(): Promise<boolean> {
    await writeFile(this.uri.fsPath, this.#text);
    this.isDirty = false;
    return true;
  }
}

export class WorkspaceEdit {
  readonly replaced: { uri: Uri; range: Range; text: string }[] = [];
  readonly created: { uri: Uri; contents: Uint8Array }[] = [];

  replace(uri: Uri, range: Range, text: string): void {
    this.replaced.push({ uri, range, text });
  }

  createFile(uri: Uri, { contents }: { overwrite: boolean; contents: Uint8Array }): void {
    this.created.push({ uri, contents });
  }
}

export class EventEmitter<Value> {
  readonly #listeners = new Set<(value: Value) => void>();

  readonly event = (listener: (value: Value) => void) => {
    this.#listeners.add(listener);
    return { dispose: () => this.#listeners.delete(listener) };
  };

  fire(value: Value): void {
    for (const listener of this.#listeners) listener(value);
  }
}

export const configured = new EventEmitter<{ affectsConfiguration(name: string): boolean }>();

export const workspace = {
  workspaceFolders: undefined as { uri: Uri; name: string; index: number }[] | undefined,
  fs: {
    async stat(uri: Uri) {
      const found = await stat(uri.fsPath);
      return { type: found.isDirectory() ? FileType.Directory : FileType.File };
    },
  },
  getConfiguration: (section: string) => ({ get: (name: string) => settings.get(`${section}.${name}`) }),
  onDidChangeConfiguration: configured.event,
  registerTextDocumentContentProvider(scheme: string, provider: { provideTextDocumentContent(uri: Uri): string }) {
    providers.set(scheme, provider);
    return { dispose: () => providers.delete(scheme) };
  },
  async openTextDocument(what: Uri | { content: string; language: string }): Promise<TextDocument> {
    if (!(what instanceof Uri)) return new TextDocument(Uri.from({ scheme: "untitled" }), what.content);
    const provider = providers.get(what.scheme);
    if (provider) return new TextDocument(what, provider.provideTextDocumentContent(what));
    const known = documents.get(what.path);
    if (known) return known;
    const document = new TextDocument(what, await readFile(what.fsPath, "utf8"));
    documents.set(what.path, document);
    return document;
  },
  async applyEdit(edit: WorkspaceEdit): Promise<boolean> {
    for (const { uri, contents } of edit.created) {
      await mkdir(dirname(uri.fsPath), { recursive: true });
      await writeFile(uri.fsPath, contents, { flag: "wx" });
    }
    for (const { uri, range, text } of edit.replaced) {
      const document = await workspace.openTextDocument(uri);
      const before = document.getText();
      document.type(before.slice(0, document.offsetAt(range.start)) + text + before.slice(document.offsetAt(range.end)));
    }
    return true;
  },
  async findFiles({ base }: RelativePattern, _exclude: string, most: number): Promise<Uri[]> {
    const found = await readdir(base.fsPath, { recursive: true, withFileTypes: true });
    return found
      .filter((entry) => entry.isFile())
      .map((entry) => Uri.file(join(entry.parentPath, entry.name)))
      .slice(0, most);
  },
};

export class StatusBarItem {
  text = "";
  tooltip = "";
  command = "";

  show(): void {
    person.bars.push(this);
  }

  dispose(): void {}
}

export class FakePanel {
  readonly #received = new EventEmitter<unknown>();
  readonly #disposed = new EventEmitter<void>();
  readonly options: unknown;
  readonly posted: any[] = [];
  readonly webview = {
    html: "",
    cspSource: "https://webview.test",
    asWebviewUri: (uri: Uri) => Uri.from({ scheme: "https", path: uri.path }),
    onDidReceiveMessage: this.#received.event,
    postMessage: async (message: unknown) => {
      this.posted.push(message);
      return true;
    },
  };
  readonly onDidDispose = this.#disposed.event;

  constructor(options: unknown) {
    this.options = options;
  }

  reveal(): void {}

  /** As the page would. */
  send(message: unknown): void {
    this.#received.fire(message);
  }

  /** All that its page shows. */
  get text(): string {
    const blocks: { text: string }[] = [];
    for (const { change } of this.posted) if (change) blocks.splice(change.keep, Infinity, ...change.blocks);
    return blocks.map(({ text }) => text).join("\n");
  }

  dispose(): void {
    this.#disposed.fire();
  }
}

type Options = { modal?: boolean; detail?: string };

const message = (kind: Dialog["kind"]) => (text: string, first?: Options | string, ...rest: string[]) => {
  const options = typeof first === "object" ? first : {};
  const buttons = typeof first === "string" ? [first, ...rest] : rest;
  return asked({ kind, text, detail: options.detail, modal: options.modal ?? false, buttons });
};

export const window = {
  showWarningMessage: message("warning"),
  showInformationMessage: message("information"),
  showErrorMessage: message("error"),
  showInputBox: ({ title = "", prompt }: { title?: string; prompt?: string }) =>
    asked({ kind: "input", text: title, detail: prompt, modal: false, buttons: [] }),
  showQuickPick: (buttons: string[], { title = "" }: { title?: string }) =>
    asked({ kind: "pick", text: title, detail: undefined, modal: false, buttons }),
  showTextDocument: async (document: TextDocument) => {
    person.executed.push({ command: "showTextDocument", args: [document.getText()] });
  },
  createStatusBarItem: () => new StatusBarItem(),
  createWebviewPanel(_type: string, _title: string, _column: unknown, options: unknown) {
    const panel = new FakePanel(options);
    person.panels.push(panel);
    return panel;
  },
};

export const commands = {
  registerCommand(name: string, run: (...args: unknown[]) => unknown) {
    registered.set(name, run);
    return { dispose: () => registered.delete(name) };
  },
  getCommands: async () => [...registered.keys()],
  async executeCommand(command: string, ...args: unknown[]): Promise<unknown> {
    person.executed.push({ command, args });
    return registered.get(command)?.(...args);
  },
};

class Memento {
  readonly #kept = new Map<string, unknown>();

  get(key: string): unknown {
    return this.#kept.get(key);
  }

  async update(key: string, value: unknown): Promise<void> {
    this.#kept.set(key, value);
  }

  async store(key: string, value: string): Promise<void> {
    this.#kept.set(key, value);
  }

  async delete(key: string): Promise<void> {
    this.#kept.delete(key);
  }
}

/** What `activate` gets. Kept by a test, it is the same window after a reload. */
export function contextOf(root: string) {
  const subscriptions: { dispose(): unknown }[] = [];
  return {
    subscriptions,
    extensionUri: Uri.file(root),
    workspaceState: new Memento(),
    secrets: new Memento(),
    /** As when the window is closed, or loaded again. */
    deactivate: () => subscriptions.splice(0).forEach((each) => each.dispose()),
  };
}
