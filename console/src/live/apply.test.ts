import { QueryClient } from '@tanstack/react-query';
import { beforeEach, describe, expect, it } from 'vitest';

import { apply } from './apply';

const row = (id: string, state: string, name = id) => ({ id, state, name });
const stale = (queries: QueryClient, key: unknown[]) => queries.getQueryState(key)?.isInvalidated;

describe('a change', () => {
  const all = ['clusters', 'list', {}];
  const pending = ['clusters', 'list', { state: 'pending' }];
  let queries: QueryClient;

  beforeEach(() => {
    queries = new QueryClient();
    queries.setQueryData(all, { items: [row('cls_1', 'connected'), row('cls_2', 'pending')] });
    queries.setQueryData(pending, { items: [row('cls_2', 'pending')] });
    queries.setQueryData(['clusters', 'one', 'edge'], row('cls_1', 'connected'));
  });

  it('patches the row and the page that are known', () => {
    apply(queries, 'cluster', JSON.stringify(row('cls_1', 'connected', 'renamed')));
    expect(queries.getQueryData(all)).toMatchObject({ items: [{ name: 'renamed' }, { id: 'cls_2' }] });
    expect(queries.getQueryData(['clusters', 'one', 'edge'])).toMatchObject({ name: 'renamed' });
    expect(stale(queries, all)).toBe(false);
  });

  it('never adds a row to a filtered list, but has it asked for again', () => {
    apply(queries, 'cluster', JSON.stringify(row('cls_3', 'connected')));
    expect(queries.getQueryData(pending)).toEqual({ items: [row('cls_2', 'pending')] });
    expect(stale(queries, pending)).toBe(true);
  });

  it('has a list asked for again when a filtered field moves', () => {
    apply(queries, 'cluster', JSON.stringify(row('cls_2', 'connected')));
    expect(stale(queries, pending)).toBe(true);
    expect(stale(queries, all)).toBe(true);
  });

  it('that was missed makes everything out of date', () => {
    apply(queries, 'gap', '{}');
    expect(stale(queries, all)).toBe(true);
    expect(stale(queries, ['clusters', 'one', 'edge'])).toBe(true);
  });
});
