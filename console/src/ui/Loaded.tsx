// What a page shows of one thing that it fetches: loading, a failure, or the thing with a note
// when it could not be asked for again.
import { Skeleton, Stack } from '@mantine/core';
import type { UseQueryResult } from '@tanstack/react-query';
import type { ReactNode } from 'react';

import { Failure } from './Notice';

interface LoadedProps<T> {
  query: UseQueryResult<T>;
  children: (data: T) => ReactNode;
}

export function Loaded<T>({ query, children }: LoadedProps<T>) {
  if (query.data === undefined) {
    return query.error === null ? (
      <Waiting />
    ) : (
      <Failure error={query.error} again={() => void query.refetch()} />
    );
  }
  return (
    <Stack gap="lg">
      {query.error !== null && <Failure error={query.error} again={() => void query.refetch()} />}
      {children(query.data)}
    </Stack>
  );
}

/** Grey lines in the shape of what comes. */
export function Waiting({ lines = 4 }: { lines?: number }) {
  return (
    <Stack gap="sm" className="card padded" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, index) => (
        <Skeleton key={index} height={18} width={`${90 - index * 12}%`} />
      ))}
    </Stack>
  );
}
