/** What was typed and not sent, kept over a reload of the tab. A browser that keeps nothing is no reason to fail. */

export function kept(key: string): string {
  try {
    return sessionStorage.getItem(`midstream.${key}`) ?? "";
  } catch {
    return "";
  }
}

export function keep(key: string, text: string): void {
  try {
    if (text === "") sessionStorage.removeItem(`midstream.${key}`);
    else sessionStorage.setItem(`midstream.${key}`, text);
  } catch {
    // Full, or forbidden: the text is still in its field.
  }
}
