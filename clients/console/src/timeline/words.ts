/** Codes and durations as people say them. */

const WORDS = new Map([
  ["next_step", "at the next step"],
  ["now", "at once"],
  ["when_idle", "when the plan is done"],
  ["approval_open", "an approval is open"],
  ["started", "running"],
  ["rate_limit", "the model's rate limit"],
  ["overloaded", "the model is overloaded"],
  ["model_error", "the model failed"],
  ["tool_limit", "too many tool calls"],
  ["context", "the conversation was too long"],
  ["crash", "the server stopped unexpectedly"],
  ["validation", "the answer did not fit"],
]);

/** A code of the open sets in words; one that is not known with its underscores as spaces. */
export const wordsOf = (code: string): string => WORDS.get(code) ?? code.replaceAll("_", " ");

/** A duration in seconds: `340 ms`, `2.5 s`, `3 min 20 s`. */
export const secondsOf = (seconds: number): string => {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return whole % 60 === 0 ? `${whole / 60} min` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
};
