import { describe, expect, it } from 'vitest';

import { SseParser } from './sse';

describe('a stream of events', () => {
  const text =
    ': connected\nid: 4\n\nevent: cluster\ndata: {"id":\ndata: "cls_1"}\nid: 5\n\n: beat\n\ndata: x\n\n';
  const whole = [
    { name: 'cluster', data: '{"id":\n"cls_1"}' },
    { name: 'message', data: 'x' },
  ];

  it('is read the same, wherever the pieces end', () => {
    for (let cut = 0; cut <= text.length; cut++) {
      const parser = new SseParser();
      const events = [...parser.feed(text.slice(0, cut)), ...parser.feed(text.slice(cut))];
      expect(events).toEqual(whole);
      expect(parser.lastId).toBe('5');
    }
  });

  it('gives no event that has not ended', () => {
    expect(new SseParser().feed('event: cluster\ndata: {}\n')).toEqual([]);
  });
});
