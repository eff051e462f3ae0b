import { signal } from "@preact/signals";

type Theme = "auto" | "light" | "dark";

const KEY = "midstream.theme";
const NEXT: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
const WORDS: Record<Theme, string> = { auto: "as the system", light: "light", dark: "dark" };

const stored = (): Theme => {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
};

const theme = signal<Theme>(stored());

const apply = (): void => {
  const { dataset } = document.documentElement;
  if (theme.value === "auto") delete dataset["theme"];
  else dataset["theme"] = theme.value;
};
apply();

export function ThemeToggle() {
  const change = (): void => {
    theme.value = NEXT[theme.value];
    apply();
    try {
      localStorage.setItem(KEY, theme.value);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
  };
  const label = `Colours: ${WORDS[theme.value]}. Change to ${WORDS[NEXT[theme.value]]}`;
  return (
    <button type="button" class="quiet theme" onClick={change} aria-label={label} title={label}>
      <svg viewBox="0 0 20 20" aria-hidden="true">
        <circle cx="10" cy="10" r="7" fill="none" stroke="currentColor" stroke-width="1.6" />
        {theme.value === "dark" && <circle cx="10" cy="10" r="7" fill="currentColor" />}
        {theme.value === "auto" && <path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor" />}
      </svg>
    </button>
  );
}
