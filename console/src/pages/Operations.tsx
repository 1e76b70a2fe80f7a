// Every long work: what runs, what failed and why.
import { Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';

import type { Schema } from '../api/client';
import { operations } from '../api/queries';
import { Ago } from '../ui/clock';
import { Empty, Filter, isFiltered, List, type Column } from '../ui/List';
import { Page } from '../ui/Page';
import { State } from '../ui/State';
import { length } from '../ui/time';
import { TextLink } from '../ui/link';

type Operation = Schema['Operation'];

/** What an operation does, in words. */
export function titleOf(operation: Operation): string {
  const kind = operation.kind.replaceAll('_', ' ');
  return `${kind.charAt(0).toUpperCase()}${kind.slice(1)} ${operation.subject.name}`;
}

const COLUMNS: Column<Operation>[] = [
  {
    title: 'What',
    cell: (one) => (
      <TextLink to="/operations/$operation" params={{ operation: one.id }} className="row-link words">
        {titleOf(one)}
      </TextLink>
    ),
  },
  { title: 'State', cell: (one) => <State of={one.state} /> },
  { title: 'Step', cell: (one) => <Step of={one} /> },
  { title: 'Cluster', cell: (one) => one.cluster?.name ?? '–' },
  { title: 'By', cell: (one) => <span className="words">{one.created_by}</span> },
  { title: 'Begun', cell: (one) => <Ago at={one.created_at} /> },
  { title: 'Took', cell: (one) => took(one) },
];

function Step({ of }: { of: Operation }) {
  if (of.failure != null)
    return (
      <Text size="sm" className="words">
        {of.failure.message}
      </Text>
    );
  const done = of.steps.filter((step) => step.state === 'done' || step.state === 'skipped').length;
  return (
    <span className="figures">
      {done} of {of.steps.length}
    </span>
  );
}

function took(of: Operation): string {
  if (of.ended_at == null) return '–';
  return length((Date.parse(of.ended_at) - Date.parse(of.created_at)) / 1000);
}

export function Operations() {
  const search = useSearch({ from: '/app/operations' });
  const go = useNavigate({ from: '/operations' });
  const query = useQuery(operations(search));
  return (
    <Page
      title="Operations"
      about="Long work goes on when you leave this page, and can be looked at by its id."
    >
      <Filter
        state={search.state}
        states={['running', 'pending', 'cancelling', 'failed', 'succeeded', 'cancelled']}
        onState={(state) => void go({ search: (old) => ({ ...old, state }) })}
      />
      <List
        label="operations"
        query={query}
        columns={COLUMNS}
        id={(one) => one.id}
        filtered={isFiltered(search)}
        unfilter={() => void go({ search: {} })}
        empty={
          <Empty title="Nothing was done yet">
            Creating, changing, backing up and restoring are operations; each is kept here with its steps.
          </Empty>
        }
      />
    </Page>
  );
}
