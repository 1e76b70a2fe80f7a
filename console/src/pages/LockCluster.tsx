// Locking a cluster, with what it reaches before it is done.
import { Button, Group, Modal, Stack, Text, TextInput } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';

import { lockCluster, unlockCluster } from '../actions/cluster';
import type { Schema } from '../api/client';
import { dataServices } from '../api/queries';
import { CommandPreview } from '../ui/CommandPreview';
import { Failure } from '../ui/Notice';
import { useAction } from '../ui/useAction';

export function LockButton({ cluster }: { cluster: Schema['Cluster'] }) {
  const [opened, { open, close }] = useDisclosure(false);
  const [message, setMessage] = useState('');
  const queries = useQueryClient();
  const locked = cluster.lock != null;
  const act = useAction(async () => {
    close();
    await queries.invalidateQueries({ queryKey: ['clusters'] });
  });
  const action = locked ? unlockCluster(cluster.name) : lockCluster(cluster.name, message);
  return (
    <>
      <Button variant="default" onClick={open}>
        {locked ? 'Unlock' : 'Lock'}
      </Button>
      <Modal
        opened={opened}
        onClose={close}
        title={`${locked ? 'Unlock' : 'Lock'} ${cluster.name}`}
        size="lg"
      >
        <Stack>
          {locked ? (
            <Text>People and the controller can use the tunnel again at once.</Text>
          ) : (
            <Reach of={cluster.name} />
          )}
          {!locked && (
            <TextInput
              label="What those who are refused are told"
              placeholder="incident 4711"
              data-autofocus
              value={message}
              onChange={(event) => setMessage(event.currentTarget.value)}
            />
          )}
          <CommandPreview action={action} />
          {act.error !== null && <Failure error={act.error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Leave it
            </Button>
            <Button
              loading={act.isPending}
              disabled={!locked && message.trim() === ''}
              onClick={() => act.mutate(action)}
            >
              {locked ? 'Unlock' : 'Lock'}
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}

/** What a lock reaches. */
function Reach({ of }: { of: string }) {
  const found = useQuery(dataServices({ cluster: of })).data?.items;
  const some =
    found === undefined ? 'databases' : `${found.length} ${found.length === 1 ? 'database' : 'databases'}`;
  return (
    <Text>
      Nobody passes from now on, and what runs through the tunnel is cut within five seconds. The {some} in
      the cluster keep running and can be used from inside it, but cannot be changed from here.
    </Text>
  );
}
