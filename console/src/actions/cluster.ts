// What can be done with clusters.
import type { Schema } from '../api/client';
import type { Action } from '../api/action';

export function createCluster(body: Schema['CreateCluster']): Action {
  const labels = Object.entries(body.labels ?? {}).flatMap(([key, value]) => ['--label', `${key}=${value}`]);
  return {
    method: 'POST',
    path: '/clusters',
    body,
    cli: ['culvert', 'cluster', 'create', body.name, ...labels],
  };
}

export function createJoinToken(cluster: string, body: Schema['CreateJoinToken']): Action {
  const ttl = body.ttl_seconds ? ['--ttl', `${body.ttl_seconds / 60}m`] : [];
  const from = body.cidr ? ['--from', body.cidr] : [];
  return {
    method: 'POST',
    path: `/clusters/${encodeURIComponent(cluster)}/join-tokens`,
    body,
    cli: ['culvert', 'cluster', 'token', 'create', cluster, ...ttl, ...from],
  };
}

export function lockCluster(cluster: string, message: string): Action {
  const body: Schema['LockCluster'] = { message };
  return {
    method: 'PUT',
    path: `/clusters/${encodeURIComponent(cluster)}/lock`,
    body,
    cli: ['culvert', 'cluster', 'lock', cluster, '--message', message],
  };
}

export function unlockCluster(cluster: string): Action {
  return {
    method: 'DELETE',
    path: `/clusters/${encodeURIComponent(cluster)}/lock`,
    cli: ['culvert', 'cluster', 'unlock', cluster],
  };
}

/** Words of labels as `key=value`, one a comma; what has no `=` is kept out. */
export function labelsOf(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const one of text.split(',')) {
    const [key, value, more] = one.trim().split('=');
    if (key && value !== undefined && more === undefined) labels[key] = value;
  }
  return labels;
}
