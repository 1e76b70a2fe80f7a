// Local time or UTC: one switch for every moment on the page, kept in the browser.
import { Text, Tooltip } from '@mantine/core';
import { useInterval, useLocalStorage } from '@mantine/hooks';
import { useState } from 'react';

import { ago, moment, type Zone } from './time';

export function useZone() {
  return useLocalStorage<Zone>({
    key: 'culvert-zone',
    defaultValue: 'local',
    getInitialValueInEffect: false,
  });
}

/** The time now, looked at every `every` milliseconds. */
export function useNow(every = 1000): number {
  const [now, setNow] = useState(() => Date.now());
  useInterval(() => setNow(Date.now()), every, { autoInvoke: true });
  return now;
}

/** A moment in words, with how long ago it is. */
export function Moment({ at }: { at: string | null | undefined }) {
  const [zone] = useZone();
  if (!at)
    return (
      <Text span c="dimmed">
        –
      </Text>
    );
  return (
    <time dateTime={at} className="figures">
      {moment(at, zone)}
    </time>
  );
}

/** How long ago, with the moment on hover and for screen readers. */
export function Ago({ at }: { at: string | null | undefined }) {
  const now = useNow(5000);
  const [zone] = useZone();
  if (!at)
    return (
      <Text span c="dimmed">
        –
      </Text>
    );
  return (
    <Tooltip label={moment(at, zone)}>
      <time dateTime={at} className="figures">
        {ago(at, now)}
      </time>
    </Tooltip>
  );
}
