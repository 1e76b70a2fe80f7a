// One data service: how it is, where to connect, what it is made of, and what was done with it.
import { Grid, Group, Stack, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';

import type { Schema } from '../api/client';
import { dataService, operations } from '../api/queries';
import { specOf, statusOf } from '../api/service';
import { Ago, Moment } from '../ui/clock';
import { Copied } from '../ui/CommandPreview';
import { Loaded } from '../ui/Loaded';
import { Notice, Stale, Why } from '../ui/Notice';
import { Card, Facts, Page } from '../ui/Page';
import { State } from '../ui/State';
import { bytes } from '../ui/time';
import { DataServiceActions } from './DataServiceActions';
import { ButtonLink, TextLink } from '../ui/link';

type Service = Schema['DataService'];

export function DataService() {
  const { service } = useParams({ from: '/app/data-services/$service' });
  const query = useQuery(dataService(service));
  return (
    <Loaded query={query}>
      {(found) => (
        <Page
          title={found.name}
          beside={<State of={found.state} />}
          about={<About of={found} />}
          actions={<DataServiceActions of={found} />}
        >
          <Trouble of={found} />
          <Grid gap="lg">
            <Grid.Col span={{ base: 12, lg: 6 }}>
              <Stack gap="lg">
                <Running of={found} />
                <Backups of={found} />
              </Stack>
            </Grid.Col>
            <Grid.Col span={{ base: 12, lg: 6 }}>
              <Stack gap="lg">
                <Connect of={found} />
                <Work of={found} />
              </Stack>
            </Grid.Col>
          </Grid>
        </Page>
      )}
    </Loaded>
  );
}

function About({ of }: { of: Service }) {
  return (
    <>
      {specOf(of).engine} in{' '}
      <TextLink to="/clusters/$cluster" params={{ cluster: of.cluster.name }} size="sm" underline="always">
        {of.cluster.name}
      </TextLink>
      , namespace {of.namespace}
    </>
  );
}

/** What is out of order, worst first. */
function Trouble({ of }: { of: Service }) {
  const { why, pendingChanges = [] } = statusOf(of);
  return (
    <>
      {of.stale && <Stale at={<Moment at={of.observed_at} />}>The database keeps running.</Stale>}
      {why !== undefined && <Why cause={why} tone={of.state === 'unavailable' ? 'bad' : 'warn'} />}
      {of.in_sync === false && (
        <Notice tone="warn" title="Somebody changed it in the cluster">
          <Text size="sm" mt={4} pl={28}>
            What runs differs from what is recorded here. See it: culvert data-service diff {of.name}
          </Text>
        </Notice>
      )}
      {pendingChanges.map((one) => (
        <Notice key={one.field} tone="busy" title={`${one.field} waits for ${one.waitsFor}`}>
          <Text size="sm" mt={4} pl={28}>
            From {one.from ?? 'nothing'} to {one.to ?? 'nothing'}; costs: {one.effect}
          </Text>
        </Notice>
      ))}
    </>
  );
}

function Running({ of }: { of: Service }) {
  const [spec, status] = [specOf(of), statusOf(of)];
  const topology = spec.topology?.synchronous ? ', a commit waits for a standby' : '';
  return (
    <Card title="Overview">
      <Facts
        stale={of.stale}
        of={[
          ['Version', `${spec.engine} ${status.version?.running ?? spec.version}`],
          [
            'Instances',
            `${status.readyReplicas ?? `none of ${spec.topology?.replicas ?? 1}`} ready${topology}`,
          ],
          [
            'CPU and memory',
            `${spec.resources?.cpu ?? 'default'}, ${spec.resources?.memory ?? 'default'} each`,
          ],
          [
            'Volume',
            `${spec.storage?.size ?? 'default'}${spec.storage?.class ? `, class ${spec.storage.class}` : ''}`,
          ],
          ['Data', status.dataBytes === undefined ? '–' : bytes(status.dataBytes)],
          ['Protected', spec.deletion?.protection ? 'yes: it cannot be deleted' : 'no'],
          ['Project', of.project.name],
          ['Created', <Moment key="t" at={of.created_at} />],
        ]}
      />
    </Card>
  );
}

function Backups({ of }: { of: Service }) {
  const { lastBackup, recoverable } = statusOf(of);
  const target = specOf(of).backup?.target;
  if (target === undefined) {
    return (
      <Card title="Backups">
        <Notice tone="warn" title="It has no backups">
          <Text size="sm" mt={4} pl={28}>
            Next: culvert data-service update {of.name} --backup-target TARGET
          </Text>
        </Notice>
      </Card>
    );
  }
  return (
    <Card title="Backups">
      <Facts
        stale={of.stale}
        of={[
          ['Target', target],
          ['Last good backup', <Ago key="t" at={lastBackup?.at} />],
          ['Proven by a restore', lastBackup === undefined ? '–' : lastBackup.verified ? 'yes' : 'not yet'],
          ['Can go back to', recoverable?.from ? <Moment key="t" at={recoverable.from} /> : '–'],
          ['And up to', recoverable?.to ? <Moment key="t" at={recoverable.to} /> : '–'],
        ]}
      />
    </Card>
  );
}

function Connect({ of }: { of: Service }) {
  const endpoints = statusOf(of).endpoints ?? [];
  return (
    <Card title="Endpoints in the cluster">
      {endpoints.length === 0 ? (
        <Text c="dimmed">None yet; they appear when it is ready.</Text>
      ) : (
        endpoints.map((one) => (
          <Stack gap={4} key={one.name} mb="xs">
            <Text size="sm" fw={600}>
              {one.name}
            </Text>
            <Copied text={`${one.host}:${one.port}`} />
          </Stack>
        ))
      )}
    </Card>
  );
}

function Work({ of }: { of: Service }) {
  const query = useQuery(operations({ subject: of.id }));
  return (
    <Card
      title="Operations"
      aside={
        <ButtonLink to="/operations" search={{ subject: of.id }} variant="subtle" size="compact-sm">
          All
        </ButtonLink>
      }
    >
      <Loaded query={query}>
        {(found) => (
          <Stack gap="xs">
            {found.items.length === 0 && <Text c="dimmed">None yet.</Text>}
            {found.items.slice(0, 5).map((one) => (
              <Group key={one.id} justify="space-between">
                <TextLink to="/operations/$operation" params={{ operation: one.id }}>
                  {one.kind.replaceAll('_', ' ')}
                </TextLink>
                <Group gap="xs">
                  <Text size="sm" c="dimmed">
                    <Ago at={one.created_at} />
                  </Text>
                  <State of={one.state} />
                </Group>
              </Group>
            ))}
          </Stack>
        )}
      </Loaded>
    </Card>
  );
}
