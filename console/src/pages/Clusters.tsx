// The clusters: which are connected, since when, and what they run.
import { Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';

import type { Schema } from '../api/client';
import { clusters } from '../api/queries';
import { Ago } from '../ui/clock';
import { Icon } from '../ui/Icon';
import { Empty, Filter, isFiltered, List, type Column } from '../ui/List';
import { Page } from '../ui/Page';
import { State } from '../ui/State';
import { ButtonLink, TextLink } from '../ui/link';

type Cluster = Schema['Cluster'];

const COLUMNS: Column<Cluster>[] = [
  {
    title: 'Name',
    cell: (one) => (
      <TextLink to="/clusters/$cluster" params={{ cluster: one.name }} className="row-link words">
        {one.name}
      </TextLink>
    ),
  },
  { title: 'State', cell: (one) => <State of={one.state} /> },
  { title: 'Kubernetes', cell: (one) => one.facts?.kubernetes_version ?? <Text c="dimmed">–</Text> },
  { title: 'Round trip', cell: (one) => <RoundTrip us={one.agent?.rtt_us} /> },
  { title: 'Labels', cell: (one) => <Labels of={one.labels} /> },
  {
    title: 'Last seen',
    cell: (one) => (one.state === 'connected' ? 'now' : <Ago at={one.agent?.last_seen_at} />),
  },
];

export function RoundTrip({ us }: { us: number | null | undefined }) {
  if (us === null || us === undefined) return <Text c="dimmed">–</Text>;
  return <span className="figures">{(us / 1000).toFixed(1)} ms</span>;
}

function Labels({ of }: { of: Record<string, string> }) {
  const pairs = Object.entries(of).map(([key, value]) => `${key}=${value}`);
  return <span className="words">{pairs.length > 0 ? pairs.join(', ') : <Text c="dimmed">–</Text>}</span>;
}

export function Clusters() {
  const search = useSearch({ from: '/app/clusters' });
  const go = useNavigate({ from: '/clusters' });
  const query = useQuery(clusters(search));
  const connect = (
    <ButtonLink to="/clusters/new" leftSection={<Icon name="plus" size={15} />}>
      Connect a cluster
    </ButtonLink>
  );
  return (
    <Page
      title="Clusters"
      about="Where databases run. Each keeps one outbound connection; nothing listens in it."
      actions={connect}
    >
      <Filter
        {...search}
        states={['connected', 'disconnected', 'pending', 'locked']}
        onName={(name) => void go({ search: (old) => ({ ...old, name }), replace: true })}
        onState={(state) => void go({ search: (old) => ({ ...old, state }) })}
      />
      <List
        label="clusters"
        query={query}
        columns={COLUMNS}
        id={(one) => one.id}
        filtered={isFiltered(search)}
        unfilter={() => void go({ search: {} })}
        empty={
          <Empty title="No cluster yet" action={connect}>
            A cluster is connected by an agent inside it, which dials out on one port. It takes one command
            and about a minute.
          </Empty>
        }
      />
    </Page>
  );
}
