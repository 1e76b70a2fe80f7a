// One connection to the stream of changes, held for as long as it lives.
import { SseParser, type ServerEvent } from './sse';

/** The controller shows a sign of life every 10 s; after two missed the stream counts as dead. */
const SILENCE_MS = 25_000;

export interface Hearer {
  /** Any sign of life. */
  beat: () => void;
  event: (event: ServerEvent) => void;
}

/** Reads until the stream ends, falls silent, or `signal` says so; gives the last event's number. */
export async function hear(
  last: string | undefined,
  hearer: Hearer,
  signal: AbortSignal,
): Promise<string | undefined> {
  const parser = new SseParser();
  parser.lastId = last;
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const headers: Record<string, string> = last === undefined ? {} : { 'last-event-id': last };
    const response = await fetch('/api/v1/events', {
      headers,
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok || response.body === null) return last;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return parser.lastId;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      hearer.beat();
      for (const event of parser.feed(value)) hearer.event(event);
    }
  } catch {
    // An end like any other: whoever called comes back.
    return parser.lastId;
  } finally {
    clearTimeout(timer);
  }
}
