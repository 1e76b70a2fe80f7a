// What a new database would be, asked of the controller while one types.
import { List, Stack, Text } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';

import { planDataService, type NewDataService } from '../actions/dataService';
import { send } from '../api/action';
import type { Schema } from '../api/client';
import { planOf, type Plan } from '../api/service';
import { Failure, Notice, Why } from '../ui/Notice';
import { Card, Facts } from '../ui/Page';
import { Waiting } from '../ui/Loaded';

export function PlanMargin({ form }: { form: NewDataService }) {
  const [settled] = useDebouncedValue(form, 350);
  const whole = settled.name !== '' && settled.cluster !== '';
  const query = useQuery({
    queryKey: ['data-services', 'plan', settled],
    queryFn: async () => (await send(planDataService(settled))) as Schema['DataServicePlan'],
    enabled: whole,
    retry: false,
    placeholderData: keepPreviousData,
  });
  return (
    <Card title="What will happen">
      {!whole && (
        <Text c="dimmed">Name it and choose a cluster, and the plan appears here. Nothing is done yet.</Text>
      )}
      {whole && query.error !== null && <Failure error={query.error} />}
      {whole && query.isPending && <Waiting lines={3} />}
      {whole && query.data !== undefined && query.error === null && <Planned answer={query.data} />}
    </Card>
  );
}

function Planned({ answer }: { answer: Schema['DataServicePlan'] }) {
  const plan = planOf(answer);
  const { claim } = answer;
  return (
    <Stack gap="sm">
      {plan.faults.map((fault) => (
        <Why
          key={fault.code + fault.message}
          cause={{ message: fault.message, next: fault.next, code: fault.code }}
        />
      ))}
      {plan.faults.length === 0 && <Text className="words">{plan.summary}</Text>}
      {plan.warnings.map((text) => (
        <Notice key={text} tone="warn" title={text} />
      ))}
      <Changes plan={plan} />
      <Text size="sm" fw={600}>
        What the project uses for it
      </Text>
      <Facts
        of={[
          ['CPU', claim.cpu],
          ['Memory', claim.memory],
          ['Volumes', claim.storage],
        ]}
      />
    </Stack>
  );
}

function Changes({ plan }: { plan: Plan }) {
  if (plan.faults.length > 0 || plan.changes.length === 0) return null;
  return (
    <List size="sm" spacing={4}>
      {plan.changes.map((change) => (
        <List.Item key={change.field} className="words">
          {change.field}: {change.to ?? 'removed'} {change.note ? `(${change.note})` : ''}
        </List.Item>
      ))}
    </List>
  );
}
