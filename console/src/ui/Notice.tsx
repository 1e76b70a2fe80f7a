// Something that the reader should know: what, why, and what to do next.
import { Button, Group, Stack, Text } from '@mantine/core';
import type { ReactNode } from 'react';

import { asProblem } from '../api/problem';
import { Icon } from './Icon';
import type { Tone } from './state';

const ICONS = { good: 'check', busy: 'wait', warn: 'warn', bad: 'warn', off: 'dot' } as const;

interface NoticeProps {
  tone: Tone;
  title: string;
  children?: ReactNode;
}

export function Notice({ tone, title, children }: NoticeProps) {
  return (
    <div className={`notice tone-${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>
      <Group gap="xs" wrap="nowrap" className="notice-title">
        <Icon name={ICONS[tone]} />
        <span className="words">{title}</span>
      </Group>
      {children}
    </div>
  );
}

/** Why something is as it is: the cause, who can mend it, and the next step. */
export interface Cause {
  message: string;
  who?: string | undefined;
  next?: string | undefined;
  code?: string | undefined;
  object?: string | undefined;
}

const WHO: Partial<Record<string, string>> = {
  developer: 'whoever owns the data service can mend it',
  'platform-operator': 'whoever owns the cluster can mend it',
  'storage-owner': 'whoever owns the object store can mend it',
  'vendor-operator': 'whoever runs the controller can mend it',
  nobody: 'it ends by itself',
};

export function Why({ cause, tone = 'bad' }: { cause: Cause; tone?: Tone }) {
  const who = cause.who === undefined ? undefined : (WHO[cause.who] ?? cause.who);
  return (
    <Notice tone={tone} title={cause.message}>
      <Stack gap={2} mt={4} pl={28}>
        {cause.next !== undefined && (
          <Text size="sm" className="words">
            Next: {cause.next}
          </Text>
        )}
        <Text size="xs" c="dimmed" className="words">
          {[who, cause.object, cause.code].filter(Boolean).join(' · ')}
        </Text>
      </Stack>
    </Notice>
  );
}

/** A failure with its request id, and a way on. */
export function Failure({ error, again }: { error: unknown; again?: () => void }) {
  const problem = asProblem(error);
  const titles: Partial<Record<number, string>> = {
    0: 'The controller does not answer',
    403: 'You may not see this',
    404: 'There is no such thing',
  };
  const title = titles[problem.status] ?? problem.message;
  return (
    <Notice tone={problem.status === 0 ? 'warn' : 'bad'} title={title}>
      <Stack gap={4} mt={4} pl={28} align="flex-start">
        {title !== problem.message && (
          <Text size="sm" className="words">
            {problem.message}
          </Text>
        )}
        {problem.next !== undefined && (
          <Text size="sm" className="words">
            Next: {problem.next}
          </Text>
        )}
        {problem.fields.map((one) => (
          <Text size="sm" key={one.field + one.code} className="words">
            {one.field}: {one.detail}
          </Text>
        ))}
        <Text size="xs" c="dimmed">
          {[problem.code, problem.requestId && `request ${problem.requestId}`].filter(Boolean).join(' · ')}
        </Text>
        {again !== undefined && (
          <Button size="xs" variant="default" onClick={again}>
            Try again
          </Button>
        )}
      </Stack>
    </Notice>
  );
}

/** Says that facts of a cluster are as of a moment, because it is not connected now. */
export function Stale({ at, children }: { at: ReactNode; children: ReactNode }) {
  return (
    <Notice tone="warn" title="The cluster is not connected">
      <Text size="sm" mt={4} pl={28}>
        What is greyed is as of {at}. {children}
      </Text>
    </Notice>
  );
}
