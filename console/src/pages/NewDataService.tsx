// Creating a database: few fields, and in the margin what it would do, before it is done.
import {
  Alert,
  Button,
  Checkbox,
  Grid,
  Group,
  NumberInput,
  Select,
  SimpleGrid,
  Stack,
  TextInput,
} from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';

import { createDataService, type NewDataService as Form } from '../actions/dataService';
import type { Schema } from '../api/client';
import { asProblem, type Problem } from '../api/problem';
import { clusterEngines, clusters } from '../api/queries';
import { CommandPreview } from '../ui/CommandPreview';
import { Failure } from '../ui/Notice';
import { Card, Page } from '../ui/Page';
import { useAction } from '../ui/useAction';
import { PlanMargin } from './PlanMargin';
import { ButtonLink } from '../ui/link';

const START: Form = {
  name: '',
  cluster: '',
  engine: 'postgresql',
  version: '17',
  replicas: 1,
  synchronous: false,
  cpu: '500m',
  memory: '1Gi',
  storage: '10Gi',
  protection: true,
};

/** What a new service of an engine begins with. */
const ENGINES: Record<string, Partial<Form>> = {
  postgresql: { engine: 'postgresql', version: '17', storage: '10Gi' },
  valkey: { engine: 'valkey', version: '8.1', storage: '1Gi', synchronous: false },
};

export function NewDataService() {
  const search = useSearch({ from: '/app/data-services/new' });
  const [form, setForm] = useState<Form>({ ...START, cluster: search.cluster ?? '' });
  const go = useNavigate();
  const create = useAction<Schema['DataServiceBegun']>((begun) =>
    go({ to: '/operations/$operation', params: { operation: begun.operation.id } }),
  );
  const action = createDataService(form);
  const problem = create.error === null ? undefined : asProblem(create.error);
  const change = (part: Partial<Form>) => setForm((old) => ({ ...old, ...part }));
  return (
    <Page title="Create a database" about="You can change all of it later, but its name, cluster and engine.">
      <Grid gap="lg">
        <Grid.Col span={{ base: 12, lg: 7 }}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              create.mutate(action);
            }}
          >
            <Stack gap="lg">
              <Card title="What and where">
                <Place form={form} change={change} problem={problem} />
              </Card>
              <Card title="How large">
                <Size form={form} change={change} problem={problem} />
              </Card>
              {problem !== undefined && <Failure error={problem} />}
              <Group>
                <Button
                  type="submit"
                  loading={create.isPending}
                  disabled={form.name === '' || form.cluster === ''}
                >
                  Create
                </Button>
                <ButtonLink variant="default" to="/data-services">
                  Cancel
                </ButtonLink>
              </Group>
            </Stack>
          </form>
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 5 }}>
          <Stack gap="lg">
            <PlanMargin form={form} />
            <Card>
              <CommandPreview action={action} />
            </Card>
          </Stack>
        </Grid.Col>
      </Grid>
    </Page>
  );
}

interface PartProps {
  form: Form;
  change: (part: Partial<Form>) => void;
  problem: Problem | undefined;
}

function Place({ form, change, problem }: PartProps) {
  const found = useQuery(clusters({ state: 'connected' })).data?.items;
  return (
    <Stack>
      {found?.length === 0 && (
        <Alert color="yellow" title="No cluster is connected">
          A database needs one. <Link to="/clusters/new">Connect a cluster</Link> first.
        </Alert>
      )}
      <SimpleGrid cols={{ base: 1, sm: 2 }}>
        <TextInput
          label="Name"
          description="A letter, then letters, digits and dashes"
          placeholder="orders"
          required
          autoFocus
          value={form.name}
          error={problem?.field('name')}
          onChange={(event) => change({ name: event.currentTarget.value })}
        />
        <Select
          label="Cluster"
          description="Where it runs"
          placeholder="A connected cluster"
          required
          searchable
          nothingFoundMessage="None of that name is connected"
          data={(found ?? []).map((one) => one.name)}
          value={form.cluster === '' ? null : form.cluster}
          error={problem?.field('cluster')}
          onChange={(cluster) => change({ cluster: cluster ?? '' })}
        />
        <Engine form={form} change={change} problem={problem} />
      </SimpleGrid>
    </Stack>
  );
}

function Engine({ form, change, problem }: PartProps) {
  const here = useQuery({ ...clusterEngines(form.cluster), enabled: form.cluster !== '' }).data?.items ?? [];
  const ready = here.filter((one) => one.ready && one.engine === form.engine).map((one) => one.version);
  return (
    <>
      <Select
        label="Engine"
        description="What runs in it"
        allowDeselect={false}
        data={[
          { value: 'postgresql', label: 'PostgreSQL' },
          { value: 'valkey', label: 'Valkey' },
        ]}
        value={form.engine}
        onChange={(engine) => change(ENGINES[engine ?? 'postgresql'] ?? {})}
      />
      <TextInput
        label="Version"
        description={
          ready.length > 0 ? `The cluster has ${ready.join(', ')}` : 'A major version, or an exact one'
        }
        value={form.version}
        error={problem?.field('spec.version')}
        onChange={(event) => change({ version: event.currentTarget.value })}
      />
    </>
  );
}

function Size({ form, change, problem }: PartProps) {
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, sm: 2 }}>
        <NumberInput
          label="Instances"
          description="One primary; the others stand by"
          min={1}
          max={5}
          value={form.replicas}
          error={problem?.field('spec.topology.replicas')}
          onChange={(value) => change({ replicas: Number(value) || 1 })}
        />
        <Quantity
          label="CPU"
          field="cpu"
          path="spec.resources.cpu"
          hint="Of each, such as 500m or 2"
          {...{ form, change, problem }}
        />
        <Quantity
          label="Memory"
          field="memory"
          path="spec.resources.memory"
          hint="Of each, such as 2Gi"
          {...{ form, change, problem }}
        />
        <Quantity
          label="Volume"
          field="storage"
          path="spec.storage.size"
          hint="Of each; it can only grow"
          {...{ form, change, problem }}
        />
      </SimpleGrid>
      <Checkbox
        label="A commit waits for a standby"
        description="No acknowledged write is lost in a failover; needs two instances"
        disabled={form.replicas < 2 || form.engine !== 'postgresql'}
        checked={form.synchronous && form.replicas > 1}
        onChange={(event) => change({ synchronous: event.currentTarget.checked })}
      />
      <Checkbox
        label="Refuse to delete it"
        description="Until somebody takes this protection away"
        checked={form.protection}
        onChange={(event) => change({ protection: event.currentTarget.checked })}
      />
    </Stack>
  );
}

interface QuantityProps extends PartProps {
  label: string;
  field: 'cpu' | 'memory' | 'storage';
  path: string;
  hint: string;
}

function Quantity({ label, field, path, hint, form, change, problem }: QuantityProps) {
  return (
    <TextInput
      label={label}
      description={hint}
      value={form[field]}
      error={problem?.field(path)}
      onChange={(event) => change({ [field]: event.currentTarget.value })}
    />
  );
}
