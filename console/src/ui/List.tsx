// A list of things: its filter stands in the URL, and every state that it can be in is designed.
import { Button, Group, Select, Stack, Table, Text, TextInput } from '@mantine/core';
import { useDebouncedCallback } from '@mantine/hooks';
import type { UseQueryResult } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';

import { Icon } from './Icon';
import { Loaded } from './Loaded';
import { lookOf } from './state';

interface Listed<T> {
  items: T[];
  next?: string | null | undefined;
}

export interface Column<T> {
  title: string;
  cell: (item: T) => ReactNode;
}

interface ListProps<T> {
  /** What the rows are, in the plural. */
  label: string;
  query: UseQueryResult<Listed<T>>;
  columns: Column<T>[];
  id: (item: T) => string;
  /** Whether a filter is set: nothing to see then means another thing. */
  filtered: boolean;
  unfilter: () => void;
  /** What to do when there is nothing yet. */
  empty: ReactNode;
}

export function List<T>(props: ListProps<T>) {
  return (
    <Loaded query={props.query}>
      {(list) => {
        if (list.items.length > 0) return <Rows {...props} list={list} />;
        if (props.filtered) return <NoMatch label={props.label} unfilter={props.unfilter} />;
        return <div className="card padded">{props.empty}</div>;
      }}
    </Loaded>
  );
}

function Rows<T>({ label, columns, id, list }: ListProps<T> & { list: Listed<T> }) {
  const more = list.next !== null && list.next !== undefined;
  return (
    <Stack gap="xs">
      <Table.ScrollContainer minWidth={560} className="card">
        <Table verticalSpacing="sm" horizontalSpacing="md" highlightOnHover aria-label={label}>
          <Table.Thead>
            <Table.Tr>
              {columns.map((column) => (
                <Table.Th key={column.title}>{column.title}</Table.Th>
              ))}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {list.items.map((item) => (
              <Table.Tr key={id(item)}>
                {columns.map((column) => (
                  <Table.Td key={column.title}>{column.cell(item)}</Table.Td>
                ))}
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Text size="sm" c="dimmed">
        {more
          ? `The first ${list.items.length} ${label}; filter to find others.`
          : `${list.items.length} ${list.items.length === 1 ? label.replace(/s$/, '') : label}`}
      </Text>
    </Stack>
  );
}

function NoMatch({ label, unfilter }: { label: string; unfilter: () => void }) {
  return (
    <Stack className="card padded" align="flex-start" gap="xs">
      <Text fw={600}>No {label} match this filter</Text>
      <Button variant="default" size="xs" onClick={unfilter}>
        Show all
      </Button>
    </Stack>
  );
}

/** What is said when there is nothing yet: what it is for, and the one thing to do. */
export function Empty({
  title,
  children,
  action,
}: {
  title: string;
  children: ReactNode;
  action?: ReactNode;
}) {
  return (
    <Stack gap="xs" align="flex-start" py="md">
      <Text fw={650} size="lg">
        {title}
      </Text>
      <Text c="dimmed" maw={560}>
        {children}
      </Text>
      {action}
    </Stack>
  );
}

/** Whether a search narrows a list at all. */
export function isFiltered(search: Record<string, string | undefined>): boolean {
  return Object.values(search).some((value) => value !== undefined);
}

interface FilterProps {
  name?: string | undefined;
  state?: string | undefined;
  states: string[];
  /** Absent where there is no filter by name. */
  onName?: (name: string | undefined) => void;
  onState: (state: string | undefined) => void;
}

/** The filter above a list. What is typed goes to the URL when the typing pauses. */
export function Filter({ name, state, states, onName, onState }: FilterProps) {
  const [typed, setTyped] = useState(name ?? '');
  const settle = useDebouncedCallback((text: string) => onName?.(text === '' ? undefined : text), 250);
  const [before, setBefore] = useState(name);
  // The URL changed by other means, as by "Show all".
  if (before !== name) {
    setBefore(name);
    setTyped(name ?? '');
  }
  return (
    <Group gap="sm" role="search">
      {onName !== undefined && (
        <TextInput
          aria-label="Filter by name"
          placeholder="Name"
          leftSection={<Icon name="search" size={15} />}
          value={typed}
          onChange={(event) => {
            setTyped(event.currentTarget.value);
            settle(event.currentTarget.value);
          }}
        />
      )}
      <Select
        aria-label="Filter by state"
        placeholder="Any state"
        clearable
        clearButtonProps={{ 'aria-label': 'Any state' }}
        data={states.map((value) => ({ value, label: lookOf(value).word }))}
        value={state ?? null}
        onChange={(value) => onState(value ?? undefined)}
      />
    </Group>
  );
}
