// Connecting a cluster, first step: its name. The record stays as pending, so leaving is safe.
import { Button, Grid, Group, Stack, TextInput } from '@mantine/core';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { createCluster, labelsOf } from '../actions/cluster';
import type { Schema } from '../api/client';
import { asProblem } from '../api/problem';
import { CommandPreview } from '../ui/CommandPreview';
import { Failure } from '../ui/Notice';
import { Card, Page } from '../ui/Page';
import { useAction } from '../ui/useAction';
import { ButtonLink } from '../ui/link';

export function NewCluster() {
  const [name, setName] = useState('');
  const [labels, setLabels] = useState('');
  const go = useNavigate();
  const create = useAction<Schema['Cluster']>((made) =>
    go({ to: '/clusters/$cluster/connect', params: { cluster: made.name } }),
  );
  const action = createCluster({ name: name.trim(), labels: labelsOf(labels) });
  const problem = create.error === null ? undefined : asProblem(create.error);
  return (
    <Page
      title="Connect a cluster"
      about="Step 1 of 2: what it is called. You can leave at any time; it stays as pending."
    >
      <Grid gap="lg">
        <Grid.Col span={{ base: 12, md: 6 }}>
          <Card>
            <form
              onSubmit={(event) => {
                event.preventDefault();
                create.mutate(action);
              }}
            >
              <Stack>
                <TextInput
                  label="Name"
                  description="Lower-case letters, digits and dashes"
                  placeholder="factory-7"
                  required
                  autoFocus
                  value={name}
                  onChange={(event) => setName(event.currentTarget.value)}
                  error={problem?.field('name')}
                />
                <TextInput
                  label="Labels"
                  description="To find it again, such as site=graz, tier=1"
                  value={labels}
                  onChange={(event) => setLabels(event.currentTarget.value)}
                  error={problem?.field('labels')}
                />
                {problem !== undefined && <Failure error={problem} />}
                <Group>
                  <Button type="submit" loading={create.isPending} disabled={name.trim() === ''}>
                    Go on
                  </Button>
                  <ButtonLink variant="default" to="/clusters">
                    Cancel
                  </ButtonLink>
                </Group>
              </Stack>
            </form>
          </Card>
        </Grid.Col>
        <Grid.Col span={{ base: 12, md: 6 }}>
          <Card>
            <CommandPreview action={action} />
          </Card>
        </Grid.Col>
      </Grid>
    </Page>
  );
}
