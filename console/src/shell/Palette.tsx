// The palette: every room, every cluster and database, and what is begun most, by their names.
import { Spotlight, type SpotlightActionData, type SpotlightActionGroupData } from '@mantine/spotlight';
import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';

import { clusters, dataServices } from '../api/queries';
import { Icon, type IconName } from '../ui/Icon';
import { ROOMS } from './rooms';

const icon = (name: IconName) => <Icon name={name} />;

export function Palette() {
  const go = useNavigate();
  const groups: SpotlightActionGroupData[] = [
    {
      group: 'Go to',
      actions: ROOMS.map((room) => to(room.to, room.label, room.icon, () => go({ to: room.to }))),
    },
    {
      group: 'Begin',
      actions: [
        to('connect', 'Connect a cluster', 'plus', () => go({ to: '/clusters/new' })),
        to('create', 'Create a database', 'plus', () => go({ to: '/data-services/new' })),
      ],
    },
    { group: 'Databases', actions: useServices() },
    { group: 'Clusters', actions: useClusters() },
  ];
  return (
    <Spotlight
      actions={groups.filter((group) => group.actions.length > 0)}
      shortcut={['mod + K', '/']}
      nothingFound="Nothing of that name"
      limit={20}
      scrollable
      maxHeight={420}
      highlightQuery
      attributes={{ content: { 'aria-label': 'Palette' } }}
      searchProps={{ placeholder: 'Go to…', 'aria-label': 'Go to', leftSection: icon('search') }}
    />
  );
}

function to(id: string, label: string, name: IconName, onClick: () => unknown): SpotlightActionData {
  return { id, label, leftSection: icon(name), onClick: () => void onClick() };
}

function useServices(): SpotlightActionData[] {
  const go = useNavigate();
  const found = useQuery(dataServices()).data?.items ?? [];
  return found.map((one) =>
    to(one.id, one.name, 'database', () =>
      go({ to: '/data-services/$service', params: { service: one.id } }),
    ),
  );
}

function useClusters(): SpotlightActionData[] {
  const go = useNavigate();
  const found = useQuery(clusters()).data?.items ?? [];
  return found.map((one) =>
    to(one.id, one.name, 'clusters', () => go({ to: '/clusters/$cluster', params: { cluster: one.name } })),
  );
}
