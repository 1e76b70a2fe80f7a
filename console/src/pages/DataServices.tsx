// The databases, wherever they run.
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';

import type { Schema } from '../api/client';
import { dataServices } from '../api/queries';
import { specOf, statusOf } from '../api/service';
import { Ago } from '../ui/clock';
import { Icon } from '../ui/Icon';
import { Empty, Filter, isFiltered, List, type Column } from '../ui/List';
import { Page } from '../ui/Page';
import { State } from '../ui/State';
import { ButtonLink, TextLink } from '../ui/link';

type DataService = Schema['DataService'];

const COLUMNS: Column<DataService>[] = [
  {
    title: 'Name',
    cell: (one) => (
      <TextLink to="/data-services/$service" params={{ service: one.id }} className="row-link words">
        {one.name}
      </TextLink>
    ),
  },
  { title: 'State', cell: (one) => <State of={one.state} /> },
  {
    title: 'Engine',
    cell: (one) => `${specOf(one).engine} ${statusOf(one).version?.running ?? specOf(one).version}`,
  },
  {
    title: 'Cluster',
    cell: (one) => (
      <TextLink to="/clusters/$cluster" params={{ cluster: one.cluster.name }}>
        {one.cluster.name}
      </TextLink>
    ),
  },
  { title: 'Instances', cell: (one) => statusOf(one).readyReplicas ?? '–' },
  {
    title: 'Last backup',
    cell: (one) => <Ago at={statusOf(one).lastBackup?.at} />,
  },
];

export function DataServices() {
  const search = useSearch({ from: '/app/data-services' });
  const go = useNavigate({ from: '/data-services' });
  const query = useQuery(dataServices(search));
  const create = (
    <ButtonLink to="/data-services/new" leftSection={<Icon name="plus" size={15} />}>
      Create a database
    </ButtonLink>
  );
  return (
    <Page
      title="Databases"
      about="Data services: what somebody wants, and what became of it."
      actions={create}
    >
      <Filter
        {...search}
        states={[
          'ready',
          'progressing',
          'degraded',
          'unavailable',
          'pending',
          'stopped',
          'deleting',
          'unknown',
        ]}
        onName={(name) => void go({ search: (old) => ({ ...old, name }), replace: true })}
        onState={(state) => void go({ search: (old) => ({ ...old, state }) })}
      />
      <List
        label="databases"
        query={query}
        columns={COLUMNS}
        id={(one) => one.id}
        filtered={isFiltered(search)}
        unfilter={() => void go({ search: {} })}
        empty={
          <Empty title="No database yet" action={create}>
            A database is created in a connected cluster. You see what it will do before it is done.
          </Empty>
        }
      />
    </Page>
  );
}
