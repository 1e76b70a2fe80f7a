import { expect, it } from 'vitest';

import type { Schema } from '../api/client';
import { needs } from './needs';

const now = Date.parse('2026-11-25T10:00:00Z');
const cluster = (name: string, state: string) => ({ id: name, name, state }) as Schema['Cluster'];
const service = (name: string, state: string, status?: object) =>
  ({ id: name, name, state, status }) as Schema['DataService'];
const failed = (name: string, ended_at: string) =>
  ({
    id: name,
    kind: 'create',
    state: 'failed',
    subject: { name },
    ended_at,
    created_at: ended_at,
  }) as Schema['Operation'];

it('begins with what is worst, and leaves out what is well', () => {
  const why = { message: 'no space', next: 'grow it' };
  const list = needs(
    [cluster('a', 'connected'), cluster('b', 'disconnected'), cluster('c', 'pending')],
    [service('x', 'ready'), service('y', 'unavailable', { why }), service('z', 'degraded')],
    [],
    now,
  );
  expect(list.map((need) => need.name)).toEqual(['y', 'b', 'z', 'c']);
  expect(list[0]).toMatchObject({ what: 'no space', next: 'grow it' });
  expect(list[3]?.to).toBe('/clusters/c/connect');
});

it('forgets a failure after a day', () => {
  const list = needs(
    [],
    [],
    [failed('old', '2026-11-24T09:59:00Z'), failed('new', '2026-11-24T10:01:00Z')],
    now,
  );
  expect(list.map((need) => need.name)).toEqual(['create new']);
});
