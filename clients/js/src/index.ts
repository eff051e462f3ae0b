/** A client of Midstream: start, follow and steer runs of AI agents over one connection that heals itself. */

export type { Approval, ApproveOptions, DenyOptions, Question, RememberOption, RememberScope } from "./approvals.js";
export { connect } from "./client.js";
export type { ConnectionState } from "./connection.js";
export type { Environment, Listenable, StorageLike, WebSocketConstructor, WebSocketLike } from "./environment.js";
export { Disconnected, MidstreamError, Refused } from "./errors.js";
export type { ErrorCode } from "./errors.js";
export type { AttachOptions, Client, ConnectOptions, StartOptions } from "./options.js";
export type * from "./protocol.js";
export { CLOSE, isEnded, isTerminal, mayRetry, PROTOCOL_VERSION } from "./protocol.js";
export type { AgentInfo, DeadLetter, Grant, Page, Rest, RunSummary, ThreadInfo } from "./rest.js";
export type { ListOptions, RequestOptions } from "./rest.js";
export type { CancelOptions, CorrectOptions, Run, Update } from "./run.js";
export type { ToolCall, ToolDefinition, ToolHandler, Tools } from "./tools.js";
export { emptyView, fold, foldAll } from "./view.js";
