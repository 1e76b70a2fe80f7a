// What can be done with a data service from its page, each with its command and its reach.
import { Button, Group, Modal, Stack, Text } from '@mantine/core';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { onDataService } from '../actions/dataService';
import type { Schema } from '../api/client';
import { CommandPreview } from '../ui/CommandPreview';
import { Failure } from '../ui/Notice';
import { useAction } from '../ui/useAction';

type Verb = 'restart' | 'stop' | 'start';

const SAID: Record<Verb, { label: string; reach: string }> = {
  restart: {
    label: 'Restart',
    reach: 'Instances restart one after the other. Connections break; writes pause for seconds.',
  },
  stop: { label: 'Stop', reach: 'All instances end and nobody can connect. The volumes stay.' },
  start: { label: 'Start', reach: 'The instances start again on their volumes.' },
};

export function DataServiceActions({ of }: { of: Schema['DataService'] }) {
  const [verb, setVerb] = useState<Verb>();
  const verbs: Verb[] = of.state === 'stopped' ? ['start'] : ['restart', 'stop'];
  if (of.state === 'deleted' || of.state === 'deleting') return null;
  return (
    <>
      {verbs.map((one) => (
        <Button key={one} variant="default" onClick={() => setVerb(one)}>
          {SAID[one].label}
        </Button>
      ))}
      {verb !== undefined && <Confirm of={of} verb={verb} close={() => setVerb(undefined)} />}
    </>
  );
}

function Confirm({ of, verb, close }: { of: Schema['DataService']; verb: Verb; close: () => void }) {
  const go = useNavigate();
  const act = useAction<Schema['DataServiceBegun']>((begun) =>
    go({ to: '/operations/$operation', params: { operation: begun.operation.id } }),
  );
  const action = onDataService(of.name, verb);
  return (
    <Modal opened onClose={close} title={`${SAID[verb].label} ${of.name}`} size="lg">
      <Stack>
        <Text>{SAID[verb].reach}</Text>
        <CommandPreview action={action} />
        {act.error !== null && <Failure error={act.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={close}>
            Leave it
          </Button>
          <Button loading={act.isPending} onClick={() => act.mutate(action)}>
            {SAID[verb].label}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
