// What needs a person, worst first: a rule over what the lists say, without a clock of its own.
import type { Schema } from '../api/client';
import { statusOf } from '../api/service';

export interface Need {
  id: string;
  name: string;
  state: string;
  what: string;
  next?: string | undefined;
  to: string;
  /** 0 is worst. */
  rank: number;
}

/** A failed operation is news for a day; after that it is history. */
const DAY_MS = 24 * 3600 * 1000;

export function needs(
  clusters: Schema['Cluster'][],
  services: Schema['DataService'][],
  failed: Schema['Operation'][],
  now: number,
): Need[] {
  const recent = failed.filter((one) => now - Date.parse(one.ended_at ?? one.created_at) < DAY_MS);
  const all = [...services.flatMap(ofService), ...clusters.flatMap(ofCluster), ...recent.map(ofOperation)];
  return all.sort((a, b) => a.rank - b.rank || a.name.localeCompare(b.name));
}

function ofCluster(one: Schema['Cluster']): Need[] {
  const base = { id: one.id, name: one.name, state: one.state, to: `/clusters/${one.name}` };
  switch (one.state) {
    case 'disconnected':
      return [{ ...base, rank: 1, what: 'The cluster is not connected; its databases keep running.' }];
    case 'locked':
      return [{ ...base, rank: 3, what: `Locked: ${one.lock?.message ?? ''}` }];
    case 'pending':
      return [
        {
          ...base,
          to: `${base.to}/connect`,
          rank: 4,
          what: 'Waits for its agent.',
          next: 'install the agent',
        },
      ];
    default:
      return [];
  }
}

function ofService(one: Schema['DataService']): Need[] {
  const { why } = statusOf(one);
  const base = { id: one.id, name: one.name, state: one.state, to: `/data-services/${one.id}` };
  if (one.state === 'unavailable' || one.state === 'degraded') {
    const what = why?.message ?? 'It does not work as it should.';
    return [{ ...base, rank: one.state === 'unavailable' ? 0 : 2, what, next: why?.next }];
  }
  return [];
}

function ofOperation(one: Schema['Operation']): Need {
  const what = one.failure?.message ?? 'It failed.';
  const name = `${one.kind.replaceAll('_', ' ')} ${one.subject.name}`;
  return {
    id: one.id,
    name,
    state: one.state,
    to: `/operations/${one.id}`,
    rank: 2,
    what,
    next: one.failure?.next,
  };
}
