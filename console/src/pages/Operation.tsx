// One operation, step by step: what takes how long, what it waits for, and the ways out.
import { Box, Button, Code, Group, Progress, Stack, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';

import { cancelOperation, retryOperation } from '../actions/operation';
import type { Schema } from '../api/client';
import { operation } from '../api/queries';
import { Moment, useNow } from '../ui/clock';
import { CommandPreview } from '../ui/CommandPreview';
import { Icon } from '../ui/Icon';
import { Loaded } from '../ui/Loaded';
import { Failure, Why } from '../ui/Notice';
import { Card, Facts, Page } from '../ui/Page';
import { State } from '../ui/State';
import { lookOf } from '../ui/state';
import { bytes, length } from '../ui/time';
import { useAction } from '../ui/useAction';
import { titleOf } from './Operations';
import { TextLink } from '../ui/link';

type OperationData = Schema['Operation'];
type StepData = Schema['OperationStep'];

export function Operation() {
  const { operation: which } = useParams({ from: '/app/operations/$operation' });
  const query = useQuery(operation(which));
  return (
    <Loaded query={query}>
      {(found) => (
        <Page title={titleOf(found)} beside={<State of={found.state} />} about={<Code>{found.id}</Code>}>
          {found.failure != null && <Why cause={found.failure} />}
          <Card title="Steps" aside={<Expected of={found} />}>
            <Transferred of={found} />
            {found.steps.map((step) => (
              <Step key={step.name} step={step} />
            ))}
          </Card>
          <Ways of={found} />
          <Card title="About">
            <Facts
              of={[
                ['For', <Subject key="s" of={found} />],
                ['Cluster', found.cluster?.name ?? '–'],
                ['By', found.created_by],
                ['Begun', <Moment key="t" at={found.created_at} />],
                ['Ended', <Moment key="t" at={found.ended_at} />],
                ['Gives up', <Moment key="t" at={found.deadline} />],
              ]}
            />
          </Card>
        </Page>
      )}
    </Loaded>
  );
}

function Subject({ of }: { of: OperationData }) {
  if (of.subject.kind !== 'data_service') return <>{of.subject.name}</>;
  return (
    <TextLink to="/data-services/$service" params={{ service: of.subject.id }}>
      {of.subject.name}
    </TextLink>
  );
}

function Expected({ of }: { of: OperationData }) {
  const now = useNow();
  const end = of.ended_at == null ? now : Date.parse(of.ended_at);
  const { low, high } = of.expected_seconds;
  return (
    <Text size="sm" c="dimmed" className="figures">
      {length((end - Date.parse(of.created_at)) / 1000)} · usually {length(low)} to {length(high)}
    </Text>
  );
}

function Transferred({ of }: { of: OperationData }) {
  if (of.progress == null) return null;
  const { done_bytes: done, total_bytes: total } = of.progress;
  return (
    <Box mb="sm">
      <Text size="sm" className="figures">
        {bytes(done)}
        {total != null && ` of ${bytes(total)}`}
      </Text>
      {total != null && <Progress value={(100 * done) / Math.max(total, 1)} aria-label="Progress" />}
    </Box>
  );
}

function Step({ step }: { step: StepData }) {
  // A step that has not begun is not busy, as a service or an operation that waits is.
  const look = step.state === 'pending' ? lookOf('off') : lookOf(step.state);
  return (
    <div className="light-row" data-step={step.name} data-state={step.state}>
      <span className={`light tone-${look.tone}`}>
        <Icon name={look.icon} size={14} />
      </span>
      <Box>
        <Text fw={600}>
          {step.title}{' '}
          <Text span size="sm" c="dimmed">
            {look.word}
          </Text>
        </Text>
        {step.message !== '' && (
          <Text size="sm" c="dimmed" className="words">
            {step.message}
          </Text>
        )}
      </Box>
      <Duration of={step} />
    </div>
  );
}

function Duration({ of }: { of: StepData }) {
  const now = useNow();
  if (of.started_at == null) return <span />;
  const end = of.ended_at == null ? now : Date.parse(of.ended_at);
  return (
    <Text size="sm" c="dimmed" className="figures">
      {length((end - Date.parse(of.started_at)) / 1000)}
    </Text>
  );
}

/** Cancel while it goes on, retry when it failed; nothing otherwise. */
function Ways({ of }: { of: OperationData }) {
  const queries = useQueryClient();
  const act = useAction(() => queries.invalidateQueries({ queryKey: ['operations'] }));
  const goes = of.state === 'pending' || of.state === 'running';
  if (!goes && of.state !== 'failed') return null;
  const action = goes ? cancelOperation(of.id) : retryOperation(of.id);
  return (
    <Card>
      <Stack>
        <Group justify="space-between">
          <Text>
            {goes
              ? 'Cancelling stops it at the next step that can be undone; what cannot is finished first.'
              : 'Trying again begins at the step that failed.'}
          </Text>
          <Button variant="default" loading={act.isPending} onClick={() => act.mutate(action)}>
            {goes ? 'Cancel' : 'Retry'}
          </Button>
        </Group>
        {act.error !== null && <Failure error={act.error} />}
        <CommandPreview action={action} />
      </Stack>
    </Card>
  );
}
