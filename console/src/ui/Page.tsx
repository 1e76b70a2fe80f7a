// The frame of a page: its title, what can be done, and one sentence of what it is.
import { Box, Group, Stack, Text, Title } from '@mantine/core';
import { useEffect, type ReactNode } from 'react';

interface PageProps {
  title: string;
  /** Stands beside the title, as a state. */
  beside?: ReactNode;
  about?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

export function Page({ title, beside, about, actions, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · Culvert`;
  }, [title]);
  return (
    <Stack gap="lg">
      <Group justify="space-between" align="flex-start" gap="md">
        <Box>
          <Group gap="sm">
            <Title order={1} className="words">
              {title}
            </Title>
            {beside}
          </Group>
          {about !== undefined && (
            <Text c="dimmed" size="sm" component="div" mt={2}>
              {about}
            </Text>
          )}
        </Box>
        {actions !== undefined && <Group gap="xs">{actions}</Group>}
      </Group>
      {children}
    </Stack>
  );
}

/** A part of a page in a card. */
export function Card({ title, aside, children }: { title?: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <Box component="section" className="card padded" aria-label={title}>
      {title !== undefined && (
        <Group justify="space-between" mb="sm">
          <Title order={2}>{title}</Title>
          {aside}
        </Group>
      )}
      {children}
    </Box>
  );
}

/** Names and values, one a line. */
export function Facts({ of, stale = false }: { of: [string, ReactNode][]; stale?: boolean }) {
  return (
    <dl className={stale ? 'facts stale' : 'facts'}>
      {of.map(([name, value]) => (
        <Box key={name} display="contents">
          <dt>{name}</dt>
          <dd>{value}</dd>
        </Box>
      ))}
    </dl>
  );
}
