// What needs you: what is broken, what failed, what goes on; and the first steps, while there are any.
import { Group, SimpleGrid, Stack, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';

import { clusters, dataServices, operations } from '../api/queries';
import { needs, type Need } from '../home/needs';
import { Ago, useNow } from '../ui/clock';
import { Icon } from '../ui/Icon';
import { Loaded, Waiting } from '../ui/Loaded';
import { Failure } from '../ui/Notice';
import { Card, Page } from '../ui/Page';
import { State } from '../ui/State';
import { titleOf } from './Operations';
import { ButtonLink, TextLink } from '../ui/link';

export function Home() {
  return (
    <Page title="Home" about="What needs you now">
      <FirstSteps />
      <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="lg">
        <Needs />
        <Running />
      </SimpleGrid>
    </Page>
  );
}

function Needs() {
  const now = useNow(30_000);
  const found = {
    clusters: useQuery(clusters()),
    services: useQuery(dataServices()),
    failed: useQuery(operations({ state: 'failed' })),
  };
  const error = Object.values(found).find((query) => query.data === undefined && query.error !== null)?.error;
  if (error) return <Failure error={error} />;
  if (Object.values(found).some((query) => query.data === undefined)) return <Waiting />;
  const list = needs(
    found.clusters.data?.items ?? [],
    found.services.data?.items ?? [],
    found.failed.data?.items ?? [],
    now,
  );
  return (
    <Card title="Needs attention">
      {list.length === 0 ? (
        <Group gap="xs" wrap="nowrap">
          <span className="light tone-good">
            <Icon name="check" size={14} />
          </span>
          <Text>Nothing. All clusters are connected, and all databases are well.</Text>
        </Group>
      ) : (
        <Stack gap="sm">
          {list.map((need) => (
            <NeedRow key={need.id} need={need} />
          ))}
        </Stack>
      )}
    </Card>
  );
}

function NeedRow({ need }: { need: Need }) {
  return (
    <Group wrap="nowrap" align="flex-start" justify="space-between">
      <div>
        <TextLink to={need.to} className="row-link words">
          {need.name}
        </TextLink>
        <Text size="sm" className="words">
          {need.what}
        </Text>
        {need.next !== undefined && (
          <Text size="sm" c="dimmed" className="words">
            Next: {need.next}
          </Text>
        )}
      </div>
      <State of={need.state} />
    </Group>
  );
}

function Running() {
  const query = useQuery(operations({ state: 'running' }));
  return (
    <Card title="Going on">
      <Loaded query={query}>
        {(found) => (
          <Stack gap="sm">
            {found.items.length === 0 && <Text c="dimmed">No operation is running.</Text>}
            {found.items.map((one) => (
              <Group key={one.id} justify="space-between">
                <TextLink to="/operations/$operation" params={{ operation: one.id }} className="row-link">
                  {titleOf(one)}
                </TextLink>
                <Text size="sm" c="dimmed">
                  <Ago at={one.created_at} />
                </Text>
              </Group>
            ))}
          </Stack>
        )}
      </Loaded>
    </Card>
  );
}

/** Ticks itself off by what is really there, and goes when all is done. */
function FirstSteps() {
  const connected = useQuery(clusters({ state: 'connected' })).data?.items.length;
  const services = useQuery(dataServices()).data?.items.length;
  if (connected === undefined || services === undefined || (connected > 0 && services > 0)) return null;
  return (
    <Card title="First steps">
      <Stack gap="sm">
        <Step done={connected > 0} label="Connect a cluster" to="/clusters/new" />
        <Step done={services > 0} label="Create a database in it" to="/data-services/new" />
      </Stack>
    </Card>
  );
}

function Step({
  done,
  label,
  to,
}: {
  done: boolean;
  label: string;
  to: '/clusters/new' | '/data-services/new';
}) {
  return (
    <Group gap="sm">
      <span className={`light tone-${done ? 'good' : 'off'}`}>
        <Icon name={done ? 'check' : 'dot'} size={14} />
      </span>
      <Text td={done ? 'line-through' : undefined} flex={1}>
        {label}
      </Text>
      {!done && (
        <ButtonLink to={to} size="xs" variant="default">
          Begin
        </ButtonLink>
      )}
    </Group>
  );
}
