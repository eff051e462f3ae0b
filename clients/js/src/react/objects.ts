/** Generative UI: objects of a run, drawn by the component that their kind is registered with. */

import { Component, type ComponentType, createElement, type ReactElement, type ReactNode } from "react";
import type { ObjectCreated, Run } from "../index.js";

export interface ObjectProps<Data = unknown> {
  /** What the agent's tool gave: check it if the tool is not yours. */
  data: Data;
  /** The whole of it: `kind`, `object_id`, `message_id`, `tool_call_id`. */
  object: ObjectCreated;
  /** For commands: what a person does with the object can become a correction. */
  run: Run | undefined;
  /** Given to a fallback only: what the renderer of the kind threw. */
  error?: unknown;
}

export type ObjectRenderer = ComponentType<ObjectProps<any>>;

/** By kind. Define it outside of components: a renderer that is made anew with each drawing loses its state. */
export type Renderers = Readonly<Record<string, ObjectRenderer>>;

export interface ObjectOptions {
  messageId?: string | undefined;
  toolCallId?: string | undefined;
  fallback?: ObjectRenderer | undefined;
}

export function elementsOf(
  objects: readonly ObjectCreated[],
  run: Run | undefined,
  renderers: Renderers,
  fallback: ObjectRenderer | undefined,
): readonly ReactElement[] {
  return objects.map((object) => {
    // The kind is the agent's word: `constructor` is no renderer.
    const renderer = Object.hasOwn(renderers, object.kind) ? renderers[object.kind] : undefined;
    return createElement(Guarded, { key: object.object_id, object, run, renderer, fallback });
  });
}

interface GuardedProps {
  object: ObjectCreated;
  run: Run | undefined;
  renderer: ObjectRenderer | undefined;
  fallback: ObjectRenderer | undefined;
}

interface GuardedState {
  readonly error?: unknown;
  readonly failed?: boolean;
}

/** One object that cannot be drawn is not to take the page with it. */
class Guarded extends Component<GuardedProps, GuardedState> {
  override state: GuardedState = {};

  static getDerivedStateFromError(error: unknown): GuardedState {
    return { error, failed: true };
  }

  override componentDidUpdate(before: GuardedProps): void {
    // Replaced by another of the same id, which may be better.
    if (this.state.failed && before.object !== this.props.object) this.setState({ failed: false, error: undefined });
  }

  override render(): ReactNode {
    const { object, run, renderer, fallback } = this.props;
    const { failed, error } = this.state;
    const props = { data: object.data, object, run };
    if (renderer && !failed) return createElement(renderer, props);
    return fallback ? createElement(fallback, failed ? { ...props, error } : props) : null;
  }
}
