// One stream for all tabs of a browser: a browser opens only six connections to a host over
// HTTP/1.1, and each stream would take one. The tab that holds the lock reads and tells the
// others; when it is closed the lock goes to the next, and when it falls silent it is taken.
import type { ServerEvent } from './sse';
import { hear } from './stream';

const LOCK = 'culvert-live';
const CHANNEL = 'culvert-live';
/** A tab that heard nothing for this long takes the lock. */
const DEAD_MS = 40_000;
/** Wait before coming back, doubled each time up to the limit. */
const AGAIN_MS = 500;
const AGAIN_LIMIT_MS = 15_000;

type Told = { kind: 'beat' } | { kind: 'lost' } | { kind: 'event'; event: ServerEvent };
type Said = Told | { kind: 'hello' };

export interface Listener {
  live: (live: boolean) => void;
  event: (event: ServerEvent) => void;
  /** The stream is there, after a time in which this tab may have missed something. */
  began: () => void;
}

/** Takes part until the function that is returned is called. */
export function share(listener: Listener): () => void {
  const channel = new BroadcastChannel(CHANNEL);
  const stop = new AbortController();
  const state = { live: false, leads: false, heard: Date.now() };

  const take = (told: Told) => {
    state.heard = Date.now();
    if (told.kind === 'event') listener.event(told.event);
    const live = told.kind !== 'lost';
    if (live === state.live) return;
    state.live = live;
    if (live) listener.began();
    listener.live(live);
  };
  channel.onmessage = (message: MessageEvent<Said>) => {
    if (message.data.kind !== 'hello') take(message.data);
    else if (state.leads && state.live) channel.postMessage({ kind: 'beat' } satisfies Told);
  };
  const tell = (told: Told) => {
    state.leads = true;
    channel.postMessage(told);
    take(told);
  };
  // Whoever leads says at once that the stream lives, and not with the next beat.
  channel.postMessage({ kind: 'hello' } satisfies Said);

  lead(tell, stop.signal, false);
  const watch = setInterval(() => {
    if (Date.now() - state.heard < DEAD_MS) return;
    take({ kind: 'lost' });
    lead(tell, stop.signal, true);
  }, DEAD_MS / 8);

  return () => {
    stop.abort();
    clearInterval(watch);
    channel.close();
  };
}

/** Waits for the lock, or takes it, and reads the stream while it is ours. */
function lead(tell: (told: Told) => void, stop: AbortSignal, steal: boolean): void {
  const lost = new AbortController();
  const signal = AbortSignal.any([stop, lost.signal]);
  const options: LockOptions = steal ? { steal } : { signal: stop };
  navigator.locks
    .request(LOCK, options, () => read(tell, signal))
    // Stopped, or another tab took the lock because this one slept.
    .catch(() => {
      lost.abort();
      if (!stop.aborted) lead(tell, stop, false);
    });
}

async function read(tell: (told: Told) => void, signal: AbortSignal): Promise<void> {
  let last: string | undefined;
  let wait = AGAIN_MS;
  const over = () => signal.aborted;
  while (!over()) {
    const beat = () => {
      wait = AGAIN_MS;
      tell({ kind: 'beat' });
    };
    last = await hear(last, { beat, event: (event) => tell({ kind: 'event', event }) }, signal);
    if (over()) return;
    tell({ kind: 'lost' });
    await pause(wait, signal);
    wait = Math.min(wait * 2, AGAIN_LIMIT_MS);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
