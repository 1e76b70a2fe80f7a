import { describe, expect, it } from 'vitest';

import { ago, bytes, length, moment } from './time';

describe('times and lengths', () => {
  it('say a moment with 24 hours', () => {
    expect(moment('2026-11-25T22:02:07Z', 'utc')).toBe('25 Nov 2026, 22:02:07 UTC');
    expect(moment('soon', 'utc')).toBe('soon');
  });

  it('say how long ago, and what is to come', () => {
    const now = Date.parse('2026-11-25T10:00:00Z');
    expect(ago('2026-11-25T09:59:15Z', now)).toBe('45 s ago');
    expect(ago('2026-11-25T10:05:00Z', now)).toBe('in 5 min');
  });

  it.each([
    [59, '59 s'],
    [60, '1 min'],
    [7200, '2 h'],
    [7500, '2 h 5 min'],
    [48 * 3600, '2 d'],
    [-3, '0 s'],
  ])('say %d seconds as %s', (seconds, text) => expect(length(seconds)).toBe(text));

  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.5 KiB'],
    [3 * 1024 ** 3, '3.0 GiB'],
  ])('say %d bytes as %s', (count, text) => expect(bytes(count)).toBe(text));
});
