// Generated from protocol/schema/midstream.schema.json by scripts/types.mjs. Do not edit: run `npm run types`.
/**
 * One frame of the wire contract, or a view. The law is PROTOCOL.md.
 */
export type MidstreamProtocolV1 = Event | Command | Frame | View;
export type Event =
  | RunStartedEvent
  | RunStatusChangedEvent
  | RunStepEvent
  | RunCancellingEvent
  | ThreadTitledEvent
  | PlanCreatedEvent
  | PlanUpdatedEvent
  | GuardrailTriggeredEvent
  | MessageStartedEvent
  | MessageDeltaEvent
  | MessageCompletedEvent
  | MessageSupersededEvent
  | ReasoningDeltaEvent
  | ToolPreparingEvent
  | ToolStartedEvent
  | ToolRequestedEvent
  | ToolProgressEvent
  | ToolRetryingEvent
  | ToolPendingEvent
  | ToolCompletedEvent
  | ToolFailedEvent
  | ApprovalRequiredEvent
  | ApprovalResolvedEvent
  | InputRequiredEvent
  | InputResolvedEvent
  | CorrectionAcceptedEvent
  | CorrectionHeldEvent
  | CorrectionAppliedEvent
  | CorrectionReturnedEvent
  | CorrectionRevokedEvent
  | RecoveryStartedEvent
  | ContextTrimmedEvent
  | ObjectCreatedEvent
  | UsageUpdatedEvent
  | NoticeEvent
  | RunCompletedEvent
  | RunFailedEvent
  | RunCancelledEvent;
export type Command =
  | RunStartCommand
  | RunAttachCommand
  | RunDetachCommand
  | RunCancelCommand
  | RunCorrectCommand
  | CorrectionRevokeCommand
  | ApprovalRespondCommand
  | InputRespondCommand
  | ToolResultCommand
  | ToolsOfferCommand
  | AuthRefreshCommand
  | PingCommand;
export type Frame =
  | ConnectionReadyFrame
  | RunAttachedFrame
  | RunResetFrame
  | RunCaughtUpFrame
  | ReceiptFrame
  | PongFrame
  | HeartbeatFrame
  | ErrorFrameFrame
  | ConnectionDrainingFrame
  | AuthExpiringFrame;

export interface RunStartedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.started";
  ts: string;
  payload: RunStarted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface RunStarted {
  agent: string;
  thread_id: string;
}
/**
 * Who caused an event: the client and the command it sent.
 */
export interface Origin {
  client_id?: string;
  command_id?: string;
}
export interface RunStatusChangedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.status";
  ts: string;
  payload: RunStatusChanged;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * `run.status`: what the run does now, in a word for programs and a text for people.
 */
export interface RunStatusChanged {
  status: "queued" | "running" | "waiting";
  phase: string;
  text: string;
}
export interface RunStepEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.step";
  ts: string;
  payload: RunStep;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * A stage, turn or retry starts or ends. A retry is a new step: history is appended to, never rewritten.
 */
export interface RunStep {
  step_id: string;
  state: "completed" | "failed" | "skipped" | "started";
  kind: string;
  title: string;
  agent: string;
  parent_step_id?: string;
  todo_id?: string;
  index?: number;
  of?: number;
  attempt?: number;
}
export interface RunCancellingEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.cancelling";
  ts: string;
  payload: RunCancelling;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * A cancel was accepted. With `tool_call_id` it is that call alone; the run goes on.
 */
export interface RunCancelling {
  mode: "after_step" | "now";
  by: string;
  escalated: boolean;
  tool_call_id?: string;
  reason?: string;
}
export interface ThreadTitledEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "thread.titled";
  ts: string;
  payload: ThreadTitled;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ThreadTitled {
  title: string;
}
export interface PlanCreatedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "plan.created";
  ts: string;
  payload: PlanCreated;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface PlanCreated {
  todos: Todo[];
  reason?: string;
  correction_id?: string;
}
export interface Todo {
  id: string;
  title: string;
  agent: string;
  status: "completed" | "failed" | "in_progress" | "pending" | "skipped";
  depends_on?: string[];
}
export interface PlanUpdatedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "plan.updated";
  ts: string;
  payload: PlanUpdated;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface PlanUpdated {
  todos: Todo[];
  reason?: string;
  correction_id?: string;
}
export interface GuardrailTriggeredEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "guardrail.triggered";
  ts: string;
  payload: GuardrailTriggered;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface GuardrailTriggered {
  name: string;
  reason: string;
}
export interface MessageStartedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "message.started";
  ts: string;
  payload: MessageStarted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface MessageStarted {
  message_id: string;
  role: "assistant";
  agent: string;
}
export interface MessageDeltaEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "message.delta";
  ts: string;
  payload: MessageDelta;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface MessageDelta {
  message_id: string;
  text: string;
}
export interface MessageCompletedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "message.completed";
  ts: string;
  payload: MessageCompleted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * `text` is the deltas joined. The run's input and applied corrections come as one with role `user`.
 */
export interface MessageCompleted {
  message_id: string;
  role: "assistant" | "user";
  text: string;
  state: "complete" | "interrupted";
  stop_reason?: string;
  correction_id?: string;
}
export interface MessageSupersededEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "message.superseded";
  ts: string;
  payload: MessageSuperseded;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * Remove this message and its calls in preparation; another follows.
 */
export interface MessageSuperseded {
  message_id: string;
  reason: string;
  next_message_id?: string;
}
export interface ReasoningDeltaEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "reasoning.delta";
  ts: string;
  payload: ReasoningDelta;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ReasoningDelta {
  message_id: string;
  text: string;
}
export interface ToolPreparingEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.preparing";
  ts: string;
  payload: ToolPreparing;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * The model is still writing the call. `description` and `icon` are an app's, for people, here and below.
 */
export interface ToolPreparing {
  tool_call_id: string;
  message_id: string;
  tool: string;
  label: string;
  description?: string;
  icon?: string;
}
export interface ToolStartedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.started";
  ts: string;
  payload: ToolStarted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ToolStarted {
  tool_call_id: string;
  tool: string;
  label: string;
  args_preview: {
    [k: string]: unknown;
  };
  args_digest: string;
  attempt: number;
  message_id?: string;
  description?: string;
  icon?: string;
}
export interface ToolRequestedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.requested";
  ts: string;
  payload: ToolRequested;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * A client-run tool: only `client_id` may answer it. Its arguments are for that client, so they are whole.
 */
export interface ToolRequested {
  tool_call_id: string;
  tool: string;
  label: string;
  args: {
    [k: string]: unknown;
  };
  client_id: string;
  expires_at: string;
  expires_in_s: number;
  message_id?: string;
  description?: string;
  icon?: string;
}
export interface ToolProgressEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.progress";
  ts: string;
  payload: ToolProgress;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ToolProgress {
  tool_call_id: string;
  text?: string;
  fraction?: number;
  chunk?: Chunk;
}
/**
 * A part of a tool's result, sent before the whole.
 */
export interface Chunk {
  index: number;
  data: unknown;
  total?: number;
}
export interface ToolRetryingEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.retrying";
  ts: string;
  payload: ToolRetrying;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ToolRetrying {
  tool_call_id: string;
  attempt: number;
  max_attempts: number;
  wait_s: number;
  code: string;
}
export interface ToolPendingEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.pending";
  ts: string;
  payload: ToolPending;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * The call goes on in the background; the run waits for it before it ends.
 */
export interface ToolPending {
  tool_call_id: string;
  expires_at: string;
}
export interface ToolCompletedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.completed";
  ts: string;
  payload: ToolCompleted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ToolCompleted {
  tool_call_id: string;
  duration_ms: number;
  preview: string;
  via: string;
  truncated?: boolean;
  partial?: boolean;
}
export interface ToolFailedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "tool.failed";
  ts: string;
  payload: ToolFailed;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ToolFailed {
  tool_call_id: string;
  code: string;
  text: string;
  outcome: "completed" | "failed" | "not_started" | "unknown";
  retryable: boolean;
  execution_id?: string;
}
export interface ApprovalRequiredEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "approval.required";
  ts: string;
  payload: ApprovalRequired;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ApprovalRequired {
  approval_id: string;
  tool_call_id: string;
  tool: string;
  label: string;
  reason: string;
  risk: "high" | "low" | "medium";
  args: {
    [k: string]: unknown;
  };
  editable: boolean;
  args_digest: string;
  decisions: string[];
  remember_scopes: string[];
  expires_at: string;
  expires_in_s: number;
  on_expire: string;
  preview?: Preview;
  args_schema?: {
    [k: string]: unknown;
  };
}
/**
 * What an approval shows instead of raw arguments: `kind` (`diff`, `text`, …) says what `data` is.
 */
export interface Preview {
  kind: string;
  data: unknown;
}
export interface ApprovalResolvedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "approval.resolved";
  ts: string;
  payload: ApprovalResolved;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ApprovalResolved {
  approval_id: string;
  tool_call_id: string;
  decision: "approved" | "cancelled" | "denied" | "expired";
  by: string;
  edited: boolean;
  args_digest: string;
  reason?: string;
  args?: {
    [k: string]: unknown;
  };
  grant_id?: string;
}
export interface InputRequiredEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "input.required";
  ts: string;
  payload: InputRequired;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * The agent asks the user. `choices` are answers offered; `schema` is what an answer must fit.
 */
export interface InputRequired {
  input_id: string;
  question: string;
  expires_at: string;
  expires_in_s: number;
  schema?: {
    [k: string]: unknown;
  };
  choices?: string[];
}
export interface InputResolvedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "input.resolved";
  ts: string;
  payload: InputResolved;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * `answer` is absent when nobody gave one (`by` is then `system`).
 */
export interface InputResolved {
  input_id: string;
  by: string;
  answer?: unknown;
}
export interface CorrectionAcceptedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "correction.accepted";
  ts: string;
  payload: CorrectionAccepted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface CorrectionAccepted {
  correction_id: string;
  text: string;
  mode: "next_step" | "now" | "when_idle";
  step_id?: string;
}
export interface CorrectionHeldEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "correction.held";
  ts: string;
  payload: CorrectionHeld;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface CorrectionHeld {
  correction_id: string;
  text: string;
  reason: string;
}
export interface CorrectionAppliedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "correction.applied";
  ts: string;
  payload: CorrectionApplied;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface CorrectionApplied {
  correction_id: string;
  text: string;
  step_id: string;
  preempted: boolean;
  replanned: boolean;
}
export interface CorrectionReturnedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "correction.returned";
  ts: string;
  payload: CorrectionReturned;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface CorrectionReturned {
  correction_id: string;
  text: string;
  reason: string;
}
export interface CorrectionRevokedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "correction.revoked";
  ts: string;
  payload: CorrectionRevoked;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface CorrectionRevoked {
  correction_id: string;
  text: string;
}
export interface RecoveryStartedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "recovery.started";
  ts: string;
  payload: RecoveryStarted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * Over with the next `run.status`.
 */
export interface RecoveryStarted {
  kind: string;
  attempt: number;
  max_attempts: number;
  wait_s: number;
}
export interface ContextTrimmedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "context.trimmed";
  ts: string;
  payload: ContextTrimmed;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ContextTrimmed {
  before_tokens: number;
  after_tokens: number;
  dropped: number;
  truncated: number;
}
export interface ObjectCreatedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "object.created";
  ts: string;
  payload: ObjectCreated;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface ObjectCreated {
  object_id: string;
  kind: string;
  data: unknown;
  message_id?: string;
  tool_call_id?: string;
}
export interface UsageUpdatedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "usage.updated";
  ts: string;
  payload: UsageUpdated;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
/**
 * `usage.updated`: cumulative for the run.
 */
export interface UsageUpdated {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens: number;
  total_tokens: number;
  by_model: {
    [k: string]: ModelUsage;
  };
}
/**
 * Tokens. `cached_input_tokens` are part of `input_tokens`; total = input + output.
 */
export interface ModelUsage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens: number;
  total_tokens: number;
}
export interface NoticeEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "notice";
  ts: string;
  payload: Notice;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface Notice {
  level: "error" | "info" | "warning";
  code: string;
  text: string;
}
export interface RunCompletedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.completed";
  ts: string;
  payload: RunCompleted;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface RunCompleted {
  result: unknown;
  usage: Usage;
  digest: string;
}
/**
 * Cumulative for the run, the same also by model.
 */
export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens: number;
  total_tokens: number;
  by_model: {
    [k: string]: ModelUsage;
  };
}
export interface RunFailedEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.failed";
  ts: string;
  payload: RunFailed;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface RunFailed {
  code: string;
  text: string;
  retryable: boolean;
  error_id: string;
  completed: string[];
  effects: Effect[];
  usage: Usage;
  digest: string;
  resume?: Resume;
}
/**
 * What became of one tool call: part of the truth that a terminal event tells.
 */
export interface Effect {
  tool_call_id: string;
  tool: string;
  outcome: "completed" | "failed" | "not_started" | "unknown";
}
/**
 * How to go on after a failure.
 */
export interface Resume {
  text: string;
  run_id?: string;
  step_id?: string;
}
export interface RunCancelledEvent {
  v: 1;
  seq: number;
  run_id: string;
  type: "run.cancelled";
  ts: string;
  payload: RunCancelled;
  step_id?: string;
  origin?: Origin;
  from?: number;
}
export interface RunCancelled {
  by: string;
  mode: "after_step" | "now";
  last_seq: number;
  effects: Effect[];
  usage: Usage;
  digest: string;
  reason?: string;
}
export interface RunStartCommand {
  v: 1;
  type: "run.start";
  command_id: string;
  run_id?: string;
  payload: RunStart;
}
/**
 * `input` may be left out only with `resume`.
 */
export interface RunStart {
  input?: string | (TextBlock | ImageBlock | FileBlock)[];
  agent?: string;
  run_id?: string;
  thread_id?: string;
  if_busy?: "correct" | "parallel" | "queue" | "reject";
  resume?: ResumeFrom;
  /**
   * @maxItems 64
   */
  client_tools?: (ClientTool | string)[];
  limits?: RunLimits;
  on_abandon?: ("continue" | "pause") | CancelAfter;
  on_lag?: "continue" | "pause";
  webhook?: Webhook;
  metadata?: {
    [k: string]: unknown;
  };
}
export interface TextBlock {
  type: "text";
  text: string;
}
/**
 * `data` is base64; exactly one of `data` and `url`.
 */
export interface ImageBlock {
  type: "image";
  media_type: string;
  data?: string;
  url?: string;
}
/**
 * `data` is base64; exactly one of `data` and `url`.
 */
export interface FileBlock {
  type: "file";
  media_type: string;
  data?: string;
  url?: string;
}
/**
 * What `run.failed.resume` gave. Only the run matters; what else it said is passed over.
 */
export interface ResumeFrom {
  run_id: string;
}
/**
 * A tool that the offering client runs. One the agent declares needs only its `name`; a new one brings the rest.
 */
export interface ClientTool {
  name: string;
  description?: string;
  input_schema?: {
    [k: string]: unknown;
  };
}
/**
 * Bounds a caller puts on its own run; each can only lower the server's.
 */
export interface RunLimits {
  max_turns?: number;
  max_tool_calls?: number;
  deadline_s?: number;
}
/**
 * `on_abandon: {"cancel_after_s": 30}`: cancel when nobody has been attached for that long.
 */
export interface CancelAfter {
  cancel_after_s: number;
}
/**
 * Where the server tells of this run by HTTP, beside the places its operator named. `events` None: the server's
 * own choice.
 */
export interface Webhook {
  url: string;
  /**
   * @minItems 1
   * @maxItems 8
   */
  events?: ("approval.required" | "input.required" | "run.cancelled" | "run.completed" | "run.failed")[];
}
export interface RunAttachCommand {
  v: 1;
  type: "run.attach";
  command_id: string;
  run_id: string;
  payload?: RunAttach;
}
export interface RunAttach {
  since_seq?: number;
  epoch?: string;
  replay?: "full" | "merged" | "snapshot";
  /**
   * @maxItems 64
   */
  client_tools?: (ClientTool | string)[];
}
export interface RunDetachCommand {
  v: 1;
  type: "run.detach";
  command_id: string;
  run_id: string;
  payload?: RunDetach;
}
export interface RunDetach {}
export interface RunCancelCommand {
  v: 1;
  type: "run.cancel";
  command_id: string;
  run_id: string;
  payload?: RunCancel;
}
export interface RunCancel {
  mode?: "after_step" | "now";
  tool_call_id?: string;
  reason?: string;
}
export interface RunCorrectCommand {
  v: 1;
  type: "run.correct";
  command_id: string;
  run_id: string;
  payload: RunCorrect;
}
export interface RunCorrect {
  text: string;
  mode?: "next_step" | "now" | "when_idle";
  step_id?: string;
  replan?: boolean;
  if_ended?: "reject" | "start";
}
export interface CorrectionRevokeCommand {
  v: 1;
  type: "correction.revoke";
  command_id: string;
  run_id: string;
  payload: CorrectionRevoke;
}
export interface CorrectionRevoke {
  correction_id: string;
}
export interface ApprovalRespondCommand {
  v: 1;
  type: "approval.respond";
  command_id: string;
  run_id: string;
  payload: ApprovalRespond;
}
/**
 * `args` replace top-level arguments; they are validated before the answer is accepted.
 */
export interface ApprovalRespond {
  approval_id: string;
  decision: "approve" | "deny";
  args?: {
    [k: string]: unknown;
  };
  args_digest?: string;
  reason?: string;
  remember?: Remember;
}
export interface Remember {
  scope: "always" | "run" | "thread";
  expires_in_s?: number;
}
export interface InputRespondCommand {
  v: 1;
  type: "input.respond";
  command_id: string;
  run_id: string;
  payload: InputRespond;
}
export interface InputRespond {
  input_id: string;
  answer: unknown;
}
export interface ToolResultCommand {
  v: 1;
  type: "tool.result";
  command_id: string;
  run_id: string;
  payload: ToolResult;
}
/**
 * The answer of a client-run tool; with `progress` alone it is a sign of work, and the call stays open.
 */
export interface ToolResult {
  tool_call_id: string;
  ok?: boolean;
  result?: unknown;
  error?: ToolError;
  progress?: ToolProgressReport;
}
export interface ToolError {
  code: string;
  text: string;
}
export interface ToolProgressReport {
  text?: string;
  fraction?: number;
}
export interface ToolsOfferCommand {
  v: 1;
  type: "tools.offer";
  command_id: string;
  run_id?: string;
  payload: ToolsOffer;
}
export interface ToolsOffer {
  run_id?: string;
  /**
   * @maxItems 64
   */
  client_tools: (ClientTool | string)[];
}
export interface AuthRefreshCommand {
  v: 1;
  type: "auth.refresh";
  command_id: string;
  run_id?: string;
  payload: AuthRefresh;
}
export interface AuthRefresh {
  token: string;
}
export interface PingCommand {
  v: 1;
  type: "ping";
  command_id?: string;
  run_id?: string;
  payload?: Ping;
}
export interface Ping {
  t?: unknown;
}
export interface ConnectionReadyFrame {
  v: 1;
  type: "connection.ready";
  payload: ConnectionReady;
}
/**
 * First; a client sends nothing before it.
 */
export interface ConnectionReady {
  connection_id: string;
  client_id: string;
  server: string;
  now: string;
  heartbeat_s: number;
  principal: PrincipalInfo;
  limits: ConnectionLimits;
}
export interface PrincipalInfo {
  id: string;
  name: string;
}
export interface ConnectionLimits {
  max_frame_bytes: number;
  max_input_bytes: number;
  max_tool_result_bytes: number;
  max_runs: number;
  commands_in_flight: number;
  command_memory_s: number;
}
export interface RunAttachedFrame {
  v: 1;
  type: "run.attached";
  payload: RunAttached;
}
/**
 * `pending` items are the opening payload of what waits, with `kind` and fresh `expires_in_s`.
 */
export interface RunAttached {
  command_id: string;
  run_id: string;
  thread_id: string;
  epoch: string;
  head_seq: number;
  first_seq: number;
  status: string;
  can: string[];
  pending: {
    [k: string]: unknown;
  }[];
  queue_position?: number;
}
export interface RunResetFrame {
  v: 1;
  type: "run.reset";
  payload: RunReset;
}
/**
 * Forget what you had and start from the snapshot; the next event is `snapshot_seq` + 1.
 */
export interface RunReset {
  run_id: string;
  reason: "ahead" | "epoch" | "gone" | "requested" | "too_far" | "trimmed";
  epoch?: string;
  snapshot?: View;
  snapshot_seq?: number;
}
/**
 * A run. Items stand in the order in which they first appeared; `pending` holds what waits for an answer.
 *
 * `pending` items are the opening payload of an approval, an input or a client-run tool with its `kind`
 * (`approval`, `input`, `tool`); `expires_in_s` is as it was then, `expires_at` is absolute.
 */
export interface View {
  run_id: string;
  thread_id: string;
  agent: string;
  status: "cancelled" | "completed" | "failed" | "queued" | "running" | "waiting";
  messages: MessageView[];
  plan: Todo[];
  steps: StepView[];
  calls: CallView[];
  pending: {
    [k: string]: unknown;
  }[];
  corrections: CorrectionView[];
  objects: ObjectCreated[];
  notices: Notice[];
  cursor: Cursor;
  title?: string;
  phase?: string;
  status_text?: string;
  usage?: Usage;
  result?: unknown;
  failure?: RunFailed;
  cancelled?: RunCancelled;
}
export interface MessageView {
  message_id: string;
  role: "assistant" | "user";
  text: string;
  state: "complete" | "interrupted" | "open";
  reasoning?: string;
  step_id?: string;
  agent?: string;
  stop_reason?: string;
}
export interface StepView {
  step_id: string;
  state: "completed" | "failed" | "skipped" | "started";
  kind: string;
  title: string;
  agent: string;
  parent_step_id?: string;
  todo_id?: string;
  index?: number;
  of?: number;
  attempt?: number;
}
/**
 * One tool call. The optional fields are those of its `tool.*` events, each with the latest value it was given.
 */
export interface CallView {
  tool_call_id: string;
  tool: string;
  label: string;
  state:
    "background" | "completed" | "failed" | "preparing" | "requested" | "retrying" | "running" | "waiting_approval";
  message_id?: string;
  description?: string;
  icon?: string;
  args_preview?: {
    [k: string]: unknown;
  };
  args_digest?: string;
  args?: {
    [k: string]: unknown;
  };
  client_id?: string;
  expires_at?: string;
  expires_in_s?: number;
  attempt?: number;
  max_attempts?: number;
  wait_s?: number;
  text?: string;
  fraction?: number;
  chunk?: Chunk;
  duration_ms?: number;
  preview?: string;
  truncated?: boolean;
  via?: string;
  partial?: boolean;
  code?: string;
  outcome?: "completed" | "failed" | "not_started" | "unknown";
  retryable?: boolean;
  execution_id?: string;
}
export interface CorrectionView {
  correction_id: string;
  text: string;
  mode: "next_step" | "now" | "when_idle";
  state: "accepted" | "applied" | "held" | "returned" | "revoked";
  reason?: string;
  step_id?: string;
  preempted?: boolean;
  replanned?: boolean;
}
/**
 * How far the view has come: `epoch` is the identity of the log's history, absent where nobody said it.
 */
export interface Cursor {
  seq: number;
  epoch?: string;
}
export interface RunCaughtUpFrame {
  v: 1;
  type: "run.caught_up";
  payload: RunCaughtUp;
}
/**
 * Live from here. Not the end.
 */
export interface RunCaughtUp {
  run_id: string;
  seq: number;
}
export interface ReceiptFrame {
  v: 1;
  type: "receipt";
  payload: Receipt;
}
/**
 * The one answer to a command. `accepted` = decided and durable; its effect is at or before `at_seq`.
 */
export interface Receipt {
  command_id: string;
  status: "accepted" | "rejected";
  run_id?: string;
  thread_id?: string;
  at_seq?: number;
  as?: "corrected" | "queued" | "started";
  code?: string;
  text?: string;
  errors?: FieldError[];
  resolution?: {
    [k: string]: unknown;
  };
  retryable?: boolean;
}
/**
 * One thing wrong with one field. `path` is a JSON Pointer ("" is the whole).
 */
export interface FieldError {
  path: string;
  code: string;
  text: string;
}
export interface PongFrame {
  v: 1;
  type: "pong";
  payload: Pong;
}
export interface Pong {
  t?: unknown;
}
export interface HeartbeatFrame {
  v: 1;
  type: "heartbeat";
  payload: Heartbeat;
}
/**
 * `runs`: the last seq written to this connection, ordered with the events.
 */
export interface Heartbeat {
  now: string;
  runs: {
    [k: string]: number;
  };
}
export interface ErrorFrameFrame {
  v: 1;
  type: "error";
  payload: ErrorFrame;
}
/**
 * Only for a frame without a readable `command_id`; the connection goes on.
 */
export interface ErrorFrame {
  code: string;
  text: string;
}
export interface ConnectionDrainingFrame {
  v: 1;
  type: "connection.draining";
  payload: ConnectionDraining;
}
/**
 * Commands are still taken until the close.
 */
export interface ConnectionDraining {
  reconnect_in_s: number;
}
export interface AuthExpiringFrame {
  v: 1;
  type: "auth.expiring";
  payload: AuthExpiring;
}
export interface AuthExpiring {
  in_s: number;
}
