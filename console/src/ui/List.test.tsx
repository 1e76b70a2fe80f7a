import { MantineProvider } from '@mantine/core';
import type { UseQueryResult } from '@tanstack/react-query';
import { fireEvent, render, screen } from '@testing-library/react';
import { expect, it, vi } from 'vitest';

import { Problem } from '../api/problem';
import { List } from './List';

interface Row {
  id: string;
}
type Query = UseQueryResult<{ items: Row[]; next?: string }>;
const query = (part: object) =>
  ({ data: undefined, error: null, refetch: vi.fn(), ...part }) as unknown as Query;

function show(asked: Query, filtered = false, unfilter = vi.fn()) {
  render(
    <MantineProvider>
      <List
        label="clusters"
        query={asked}
        columns={[{ title: 'Name', cell: (row) => row.id }]}
        id={(row) => row.id}
        filtered={filtered}
        unfilter={unfilter}
        empty={<p>No cluster yet</p>}
      />
    </MantineProvider>,
  );
  return unfilter;
}

it('says that it loads', () => {
  show(query({}));
  expect(screen.getByRole('status', { name: 'Loading' })).toBeTruthy();
});

it('tells nothing yet from no match', () => {
  show(query({ data: { items: [] } }));
  expect(screen.getByText('No cluster yet')).toBeTruthy();
});

it('offers to show all when nothing matches', () => {
  const unfilter = show(query({ data: { items: [] } }), true);
  fireEvent.click(screen.getByRole('button', { name: 'Show all' }));
  expect(unfilter).toHaveBeenCalledOnce();
});

it('says why it cannot be shown, with the id to quote', () => {
  const body = { code: 'denied', detail: 'readers may not', request_id: 'req_1', errors: [] };
  show(query({ error: new Problem(403, body) }));
  expect(screen.getByText('You may not see this')).toBeTruthy();
  expect(screen.getByText('denied · request req_1')).toBeTruthy();
});

it('keeps what it has when the controller is away', () => {
  show(query({ data: { items: [{ id: 'edge' }] }, error: Problem.unreachable() }));
  expect(screen.getByText('The controller does not answer')).toBeTruthy();
  expect(screen.getByRole('cell', { name: 'edge' })).toBeTruthy();
});

it('says that there are more than it shows', () => {
  show(query({ data: { items: [{ id: 'edge' }], next: 'x' } }));
  expect(screen.getByText(/^The first 1 clusters/)).toBeTruthy();
});
