// The frame around every page of somebody who is signed in.
import { AppShell, Modal, NavLink, Text } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, Outlet, useLocation } from '@tanstack/react-router';
import { useEffect } from 'react';

import { info } from '../api/queries';
import { useLive } from '../live/useLive';
import { Icon } from '../ui/Icon';
import { Header } from './Header';
import { Palette } from './Palette';
import { ROOMS } from './rooms';
import { sessionEnded, useSessionEnded } from './session';
import { SignInForm } from './SignInForm';

export function Frame() {
  const [opened, { toggle, close }] = useDisclosure(false);
  const live = useLive();
  const { pathname } = useLocation();
  // The menu covers a narrow screen: it goes once a place is chosen.
  useEffect(close, [pathname, close]);
  return (
    <AppShell
      header={{ height: 52 }}
      navbar={{ width: 208, breakpoint: 'sm', collapsed: { mobile: !opened } }}
      padding="lg"
    >
      <a href="#main" className="skip">
        To the content
      </a>
      <AppShell.Header>
        <Header live={live} opened={opened} toggle={toggle} />
      </AppShell.Header>
      <AppShell.Navbar p="sm" aria-label="Rooms">
        {ROOMS.map((room) => (
          <NavLink
            key={room.to}
            className="nav-link"
            component={Link}
            to={room.to}
            label={room.label}
            leftSection={<Icon name={room.icon} />}
            active={room.to === '/' ? pathname === '/' : pathname.startsWith(room.to)}
          />
        ))}
        <Version />
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1}>
        <Outlet />
      </AppShell.Main>
      <Palette />
      <SignInAgain />
    </AppShell>
  );
}

function Version() {
  const found = useQuery(info).data;
  return (
    <Text size="xs" c="dimmed" mt="auto" px="xs" className="words">
      {found && `${found.domain} · ${found.version}`}
    </Text>
  );
}

/** Over the page, so that nothing typed on it is lost. */
function SignInAgain() {
  const ended = useSessionEnded();
  const queries = useQueryClient();
  const done = () => {
    sessionEnded(false);
    void queries.invalidateQueries();
  };
  return (
    <Modal opened={ended} onClose={() => sessionEnded(false)} title="Your session has ended" centered>
      <SignInForm done={done} />
    </Modal>
  );
}
