// What a state means to a person: a tone, an icon and a word, so that colour is never alone.
import type { IconName } from './Icon';

export type Tone = 'good' | 'busy' | 'warn' | 'bad' | 'off';

export interface Look {
  tone: Tone;
  icon: IconName;
  word: string;
}

const look = (tone: Tone, icon: IconName, word: string): Look => ({ tone, icon, word });

const LOOKS: Partial<Record<string, Look>> = {
  // clusters and agents
  connected: look('good', 'check', 'Connected'),
  disconnected: look('bad', 'cross', 'Disconnected'),
  locked: look('warn', 'lock', 'Locked'),
  revoked: look('bad', 'cross', 'Revoked'),
  // data services
  ready: look('good', 'check', 'Ready'),
  pending: look('busy', 'wait', 'Pending'),
  progressing: look('busy', 'wait', 'Changing'),
  degraded: look('warn', 'warn', 'Degraded'),
  unavailable: look('bad', 'cross', 'Unavailable'),
  stopped: look('off', 'pause', 'Stopped'),
  deleting: look('busy', 'wait', 'Deleting'),
  deleted: look('off', 'cross', 'Deleted'),
  unknown: look('off', 'dot', 'Unknown'),
  // operations and their steps
  running: look('busy', 'wait', 'Running'),
  cancelling: look('busy', 'wait', 'Cancelling'),
  succeeded: look('good', 'check', 'Succeeded'),
  done: look('good', 'check', 'Done'),
  failed: look('bad', 'cross', 'Failed'),
  cancelled: look('off', 'cross', 'Cancelled'),
  skipped: look('off', 'dot', 'Skipped'),
  // lights and attempts
  on: look('good', 'check', 'Seen'),
  off: look('off', 'dot', 'Not yet'),
  passed: look('good', 'check', 'Passed'),
  refused: look('bad', 'cross', 'Refused'),
};

/** The look of a state; a word that is new here is shown as it is. */
export function lookOf(state: string): Look {
  return LOOKS[state] ?? look('off', 'dot', state);
}
