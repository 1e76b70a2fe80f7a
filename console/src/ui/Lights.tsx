// How far an agent came, in lights that the controller's own observations light.
import { Box, Group, Text } from '@mantine/core';

import type { Schema } from '../api/client';
import { Moment } from './clock';
import { Icon } from './Icon';
import { Why } from './Notice';
import { lookOf } from './state';

type Diagnosis = Schema['Diagnosis'];
type Light = Schema['Light'];

const STAGES: Partial<Record<string, string>> = {
  reached: 'Reached us',
  tls: 'TLS',
  token: 'Join token',
  identity: 'Identity',
  tunnel: 'Tunnel',
  capabilities: 'Capabilities',
};

/** The cause of the latest attempt, when one stopped it. */
export function causeOf(diagnosis: Diagnosis): Schema['Attempt'] | undefined {
  const latest = diagnosis.attempts[0];
  const stopped = latest?.outcome === 'refused' || latest?.outcome === 'failed';
  return stopped && diagnosis.state !== 'connected' ? latest : undefined;
}

export function Lights({ diagnosis }: { diagnosis: Diagnosis }) {
  const cause = causeOf(diagnosis);
  return (
    <Box>
      {diagnosis.lights.map((light) => (
        <LightRow key={light.stage} light={light} />
      ))}
      {cause !== undefined && (
        <Box mt="sm">
          <Why
            cause={{
              message: cause.detail ?? cause.code ?? 'The attempt was stopped',
              next: cause.fix ?? undefined,
              code: cause.code ?? undefined,
              object: `from ${cause.source}`,
            }}
          />
        </Box>
      )}
    </Box>
  );
}

function LightRow({ light }: { light: Light }) {
  const look = lookOf(light.state);
  return (
    <div className="light-row" data-stage={light.stage} data-state={light.state}>
      <span className={`light tone-${look.tone}`}>
        <Icon name={look.icon} size={14} />
      </span>
      <Box>
        <Group gap="xs">
          <Text fw={600}>{STAGES[light.stage] ?? light.stage}</Text>
          <Text size="sm" className={`tone tone-${look.tone}`} span>
            {look.word}
          </Text>
        </Group>
        <Text size="sm" c="dimmed" className="words">
          {light.detail ?? 'nothing seen yet'}
        </Text>
      </Box>
      <Text size="sm" c="dimmed" ta="right">
        {light.at != null && <Moment at={light.at} />}
        {light.source != null && <Text size="xs">{light.source}</Text>}
      </Text>
    </div>
  );
}
