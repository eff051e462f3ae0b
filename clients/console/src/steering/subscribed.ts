import { useEffect, useState } from "preact/hooks";

/**
 * Renders anew whenever `source` tells of a change. Each component that reads from a run or a client uses it itself:
 * one whose props are the same objects is not rendered with its parent.
 */
export function useChanges(source: { subscribe(listener: () => void): () => void } | undefined): void {
  const [, tell] = useState(0);
  useEffect(() => {
    if (source === undefined) return undefined;
    const changed = (): void => tell((count) => count + 1);
    const stop = source.subscribe(changed);
    // What changed between the rendering and this subscription was told to nobody.
    changed();
    return stop;
  }, [source]);
}
