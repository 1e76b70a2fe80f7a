// The bar above every page: palette, running operations, live, clock, theme, me.
import {
  ActionIcon,
  Burger,
  Button,
  Group,
  Kbd,
  Menu,
  Tooltip,
  useComputedColorScheme,
  useMantineColorScheme,
} from '@mantine/core';
import { spotlight } from '@mantine/spotlight';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate } from '@tanstack/react-router';

import { send } from '../api/action';
import { me, operations } from '../api/queries';
import { useZone } from '../ui/clock';
import { Icon } from '../ui/Icon';
import { LiveBadge } from './Live';

interface HeaderProps {
  live: boolean;
  opened: boolean;
  toggle: () => void;
}

export function Header({ live, opened, toggle }: HeaderProps) {
  return (
    <Group h="100%" px="md" gap="sm" wrap="nowrap" justify="space-between">
      <Group gap="xs" wrap="nowrap">
        <Burger opened={opened} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Menu" />
        <Link to="/" className="brand">
          <img src="/icon.svg" alt="" width={26} height={26} />
          <span>Culvert</span>
        </Link>
      </Group>
      <Group gap="xs" wrap="nowrap">
        <Button
          variant="default"
          size="xs"
          leftSection={<Icon name="search" size={14} />}
          rightSection={<Kbd size="xs">/</Kbd>}
          onClick={spotlight.open}
          visibleFrom="sm"
        >
          Go to…
        </Button>
        <Running />
        <LiveBadge live={live} />
        <Clock />
        <Theme />
        <Me />
      </Group>
    </Group>
  );
}

function Running() {
  const found = useQuery(operations({ state: 'running' })).data?.items ?? [];
  if (found.length === 0) return null;
  return (
    <Link to="/operations" search={{ state: 'running' }} className="tone tone-busy">
      <Icon name="wait" size={13} />
      {found.length} running
    </Link>
  );
}

function Clock() {
  const [zone, setZone] = useZone();
  const other = zone === 'local' ? 'utc' : 'local';
  return (
    <Tooltip label={zone === 'local' ? 'Times are local; show UTC' : 'Times are UTC; show local'}>
      <Button
        variant="default"
        size="xs"
        leftSection={<Icon name="clock" size={14} />}
        onClick={() => setZone(other)}
        visibleFrom="sm"
      >
        {zone === 'local' ? 'Local' : 'UTC'}
      </Button>
    </Tooltip>
  );
}

function Theme() {
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme('light', { getInitialValueInEffect: false });
  const other = scheme === 'dark' ? 'light' : 'dark';
  return (
    <ActionIcon
      variant="default"
      size={30}
      onClick={() => setColorScheme(other)}
      aria-label={`Use the ${other} theme`}
    >
      <Icon name={scheme === 'dark' ? 'sun' : 'moon'} size={16} />
    </ActionIcon>
  );
}

function Me() {
  const who = useQuery(me).data;
  const queries = useQueryClient();
  const go = useNavigate();
  const signOut = async () => {
    await send({ method: 'DELETE', path: '/sessions/current', cli: ['culvert', 'logout'] });
    await go({ to: '/sign-in' });
    queries.clear();
  };
  return (
    <Menu position="bottom-end" width={230}>
      <Menu.Target>
        <ActionIcon variant="default" size={30} aria-label="Me">
          <Icon name="person" size={16} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          {who?.user.name} · {who?.user.role} · {who?.org.name ?? who?.org.id}
        </Menu.Label>
        <Menu.Item leftSection={<Icon name="out" size={15} />} onClick={() => void signOut()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
