// One cluster: its connection in lights, its agent, what it can do, and the databases in it.
import { Grid, Stack, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';

import type { Schema } from '../api/client';
import { cluster, clusterEngines, dataServices, diagnosis } from '../api/queries';
import { Ago, Moment } from '../ui/clock';
import { Lights } from '../ui/Lights';
import { Loaded } from '../ui/Loaded';
import { Notice, Stale } from '../ui/Notice';
import { Card, Facts, Page } from '../ui/Page';
import { State } from '../ui/State';
import { RoundTrip } from './Clusters';
import { LockButton } from './LockCluster';
import { ButtonLink, TextLink } from '../ui/link';

type ClusterData = Schema['Cluster'];

export function Cluster() {
  const { cluster: which } = useParams({ from: '/app/clusters/$cluster' });
  const query = useQuery(cluster(which));
  return (
    <Loaded query={query}>
      {(found) => (
        <Page
          title={found.name}
          beside={<State of={found.state} />}
          about={<span className="figures">{found.id}</span>}
          actions={<Actions of={found} />}
        >
          {found.lock != null && (
            <Notice tone="warn" title={`Locked: ${found.lock.message}`}>
              <Text size="sm" mt={4} pl={28}>
                Nobody passes through the tunnel, since <Moment at={found.lock.at} />. Databases in it keep
                running.
              </Text>
            </Notice>
          )}
          {found.state === 'disconnected' && (
            <Stale at={<Moment at={found.agent?.last_seen_at} />}>Databases in it keep running.</Stale>
          )}
          <Grid gap="lg">
            <Grid.Col span={{ base: 12, lg: 6 }}>
              <Connection which={which} />
            </Grid.Col>
            <Grid.Col span={{ base: 12, lg: 6 }}>
              <Stack gap="lg">
                <Agent of={found} />
                <Capabilities of={found} />
                <Databases of={found} />
              </Stack>
            </Grid.Col>
          </Grid>
        </Page>
      )}
    </Loaded>
  );
}

function Actions({ of }: { of: ClusterData }) {
  if (of.state === 'pending') {
    return (
      <ButtonLink to="/clusters/$cluster/connect" params={{ cluster: of.name }}>
        Install the agent
      </ButtonLink>
    );
  }
  return <LockButton cluster={of} />;
}

function Connection({ which }: { which: string }) {
  const query = useQuery(diagnosis(which));
  return (
    <Card title="Connection">
      <Loaded query={query}>
        {(found) => (
          <Stack gap="xs">
            <Text>{found.summary}</Text>
            {found.next != null && <Text size="sm">Next: {found.next}</Text>}
            <Lights diagnosis={found} />
          </Stack>
        )}
      </Loaded>
    </Card>
  );
}

function Agent({ of }: { of: ClusterData }) {
  const agent = of.agent;
  if (agent == null) {
    return (
      <Card title="Agent">
        <Text c="dimmed">None has enrolled yet.</Text>
      </Card>
    );
  }
  return (
    <Card title="Agent" aside={<State of={agent.state} />}>
      <Facts
        stale={of.state === 'disconnected'}
        of={[
          ['Version', agent.version],
          ['Connected since', <Moment key="t" at={agent.connected_since} />],
          ['Round trip', <RoundTrip key="t" us={agent.rtt_us} />],
          ['From', agent.source ?? '–'],
          ['Clock', agent.clock_skew_ms == null ? '–' : `${agent.clock_skew_ms} ms off ours`],
          ['Certificate ends', <Ago key="t" at={agent.certificate_not_after} />],
        ]}
      />
    </Card>
  );
}

function Capabilities({ of }: { of: ClusterData }) {
  const engines = useQuery(clusterEngines(of.name)).data?.items ?? [];
  const facts = of.facts;
  const ready = engines.filter((one) => one.ready).map((one) => `${one.engine} ${one.version}`);
  return (
    <Card title="Capabilities">
      {facts == null ? (
        <Text c="dimmed">The agent has not told yet.</Text>
      ) : (
        <Facts
          stale={of.state === 'disconnected'}
          of={[
            ['Kubernetes', facts.kubernetes_version],
            ['Nodes', facts.nodes],
            ['Storage classes', facts.storage_classes.length > 0 ? facts.storage_classes.join(', ') : 'none'],
            ['API latency', `${(facts.api_latency_us / 1000).toFixed(1)} ms`],
            ['Route', facts.route],
            ['Local policy', facts.policy === '' ? 'allows all' : facts.policy],
            [
              'Engines',
              ready.length > 0 ? ready.join(', ') : 'none: the operator is not installed or has no images',
            ],
          ]}
        />
      )}
      {facts?.problem != null && <Notice tone="warn" title={facts.problem} />}
    </Card>
  );
}

function Databases({ of }: { of: ClusterData }) {
  const query = useQuery(dataServices({ cluster: of.name }));
  return (
    <Card title="Databases">
      <Loaded query={query}>
        {(found) =>
          found.items.length === 0 ? (
            <Text c="dimmed">None yet.</Text>
          ) : (
            <Stack gap="xs">
              {found.items.map((one) => (
                <TextLink key={one.id} to="/data-services/$service" params={{ service: one.id }}>
                  {one.name} <State of={one.state} />
                </TextLink>
              ))}
            </Stack>
          )
        }
      </Loaded>
    </Card>
  );
}
