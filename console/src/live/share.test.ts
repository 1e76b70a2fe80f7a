import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { share, type Listener } from './share';

/** A lock as browsers have it: one holder, others wait in turn. */
function locks() {
  let last: Promise<unknown> = Promise.resolve();
  return {
    request: (_name: string, options: LockOptions, work: () => Promise<void>) => {
      const turn = last.then(() => (options.signal?.aborted ? undefined : work()));
      last = turn.catch(() => undefined);
      return turn;
    },
  };
}

/** A stream that says one event and stays open until it is no longer wanted. */
function stream(signal: AbortSignal): Response {
  const body = new ReadableStream({
    start: (controller) => {
      const text = 'id: 7\n\nevent: cluster\ndata: {}\n\n';
      controller.enqueue(new TextEncoder().encode(text));
      signal.addEventListener('abort', () => controller.error(new Error('aborted')));
    },
  });
  return new Response(body);
}

const listener = () => ({ live: vi.fn(), event: vi.fn(), began: vi.fn() }) satisfies Listener;
const asked = vi.fn((_url: string, init: RequestInit) => Promise.resolve(stream(init.signal as AbortSignal)));

beforeEach(() => {
  vi.stubGlobal('fetch', asked);
  vi.stubGlobal('navigator', { locks: locks() });
  asked.mockClear();
});
afterEach(() => vi.unstubAllGlobals());

it('opens one stream for two tabs, and both hear', async () => {
  const [first, second] = [listener(), listener()];
  const ends = [share(first), share(second)];
  await vi.waitFor(() => expect(second.event).toHaveBeenCalled());
  expect(first.event).toHaveBeenCalledWith({ name: 'cluster', data: '{}' });
  expect(first.began).toHaveBeenCalledOnce();
  expect(second.live).toHaveBeenLastCalledWith(true);
  expect(asked).toHaveBeenCalledOnce();
  for (const end of ends) end();
});

it('hands the stream to the next tab when the first is closed', async () => {
  const [first, second] = [listener(), listener()];
  const end = share(first);
  await vi.waitFor(() => expect(first.live).toHaveBeenCalledWith(true));
  const endSecond = share(second);
  end();
  await vi.waitFor(() => expect(asked).toHaveBeenCalledTimes(2));
  await vi.waitFor(() => expect(second.live).toHaveBeenCalledWith(true));
  endSecond();
});
