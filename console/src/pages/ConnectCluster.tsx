// Connecting a cluster, second step: the command with its token, and the lights.
import { Button, Grid, Group, Stack, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';
import { useState } from 'react';

import { createJoinToken } from '../actions/cluster';
import type { Schema } from '../api/client';
import { diagnosis } from '../api/queries';
import { useNow } from '../ui/clock';
import { Copied } from '../ui/CommandPreview';
import { Lights } from '../ui/Lights';
import { Loaded } from '../ui/Loaded';
import { Failure, Notice } from '../ui/Notice';
import { Card, Page } from '../ui/Page';
import { shellLine } from '../ui/shell';
import { State } from '../ui/State';
import { length } from '../ui/time';
import { useAction } from '../ui/useAction';
import { ButtonLink } from '../ui/link';

type Token = Schema['FreshJoinToken'];

/** Long enough to find somebody with rights in the cluster, short enough to lie about. */
const TOKEN_SECONDS = 3600;

export function ConnectCluster() {
  const { cluster } = useParams({ from: '/app/clusters/$cluster/connect' });
  // Attempts are told by the stream; asking now and then covers the time without one.
  const query = useQuery({ ...diagnosis(cluster), refetchInterval: 5000 });
  const connected = query.data?.state === 'connected';
  return (
    <Page
      title={`Connect ${cluster}`}
      beside={query.data && <State of={query.data.state} />}
      about="Step 2 of 2: install the agent. It dials out on one port; nothing listens in the cluster."
      actions={
        <ButtonLink variant="default" to="/clusters/$cluster" params={{ cluster }}>
          To the cluster
        </ButtonLink>
      }
    >
      <Grid gap="lg">
        <Grid.Col span={{ base: 12, lg: 6 }}>
          {connected ? <Connected /> : <Command cluster={cluster} />}
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 6 }}>
          <Card title="What the controller sees">
            <Loaded query={query}>{(found) => <Lights diagnosis={found} />}</Loaded>
          </Card>
        </Grid.Col>
      </Grid>
    </Page>
  );
}

function Connected() {
  return (
    <Notice tone="good" title="The cluster is connected">
      <Stack gap="xs" mt={4} pl={28} align="flex-start">
        <Text size="sm">
          The agent holds its own certificate now, and renews it by itself. The token is spent.
        </Text>
        <ButtonLink to="/data-services/new" size="xs">
          Create a database
        </ButtonLink>
      </Stack>
    </Notice>
  );
}

function Command({ cluster }: { cluster: string }) {
  const make = useAction<Token>(() => undefined);
  const renew = () => make.mutate(createJoinToken(cluster, { ttl_seconds: TOKEN_SECONDS }));
  return (
    <Card title="Install the agent">
      <Stack>
        {make.data === undefined ? (
          <Text size="sm">
            The command holds a token that lets one agent in, once, within an hour. It is shown here only, and
            never again.
          </Text>
        ) : (
          <Fresh token={make.data} />
        )}
        {make.error !== null && <Failure error={make.error} />}
        <Group>
          <Button
            onClick={renew}
            loading={make.isPending}
            variant={make.data === undefined ? 'filled' : 'default'}
          >
            {make.data === undefined ? 'Show the command' : 'Make another token'}
          </Button>
        </Group>
      </Stack>
    </Card>
  );
}

function Fresh({ token }: { token: Token }) {
  const [proxy, setProxy] = useState('');
  const left = (Date.parse(token.expires_at) - useNow()) / 1000;
  return (
    <Stack gap="sm">
      <TextInput
        label="Proxy"
        description="Leave it empty when the cluster dials out directly"
        placeholder="http://proxy.example:3128"
        value={proxy}
        onChange={(event) => setProxy(event.currentTarget.value)}
      />
      <Text size="sm">Run this where kubectl and helm reach the cluster:</Text>
      <Copied text={throughProxy(token.helm.command, proxy.trim())} label="Copy the command" />
      <Text size="sm" c="dimmed" role="timer">
        {left > 0
          ? `The token is good for another ${length(left)}, once.`
          : 'The token has expired: make another.'}
      </Text>
    </Stack>
  );
}

/** The command for a cluster behind a proxy. */
export function throughProxy(command: string, proxy: string): string {
  if (proxy === '') return command;
  return command.replace(' --values -', ` ${shellLine(['--set-string', `proxy.url=${proxy}`])} --values -`);
}
