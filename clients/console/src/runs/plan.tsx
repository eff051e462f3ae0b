import type { Todo } from "@midstream/client";

import { safeInline } from "../text/safe.js";

const MARKS: Record<Todo["status"], string> = {
  pending: "M8 3a5 5 0 1 1 0 10a5 5 0 1 1 0-10",
  in_progress: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5M8 5v3l2 1.5",
  completed: "M3 8.5l3.2 3.2L13 4.8",
  failed: "M4 4l8 8M12 4l-8 8",
  skipped: "M4 8h8",
};

const WORDS: Record<Todo["status"], string> = {
  pending: "to do",
  in_progress: "in progress",
  completed: "done",
  failed: "failed",
  skipped: "skipped",
};

export function Plan({ todos }: { todos: readonly Todo[] }) {
  const done = todos.filter((todo) => todo.status === "completed" || todo.status === "skipped").length;
  return (
    <section class="plan" aria-label="Plan">
      <h2>
        Plan, {done} of {todos.length} done
      </h2>
      <progress max={Math.max(1, todos.length)} value={done} aria-label="Plan" />
      <ol>
        {todos.map((todo) => (
          <li class={`todo ${todo.status}`} key={todo.id}>
            <svg viewBox="0 0 16 16" role="img" aria-label={WORDS[todo.status]}>
              <path d={MARKS[todo.status]} fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" />
            </svg>
            <span>
              <span class="todo-title">{safeInline(todo.title)}</span>
              <span class="small muted todo-agent">{safeInline(todo.agent, 40)}</span>
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
