// What can be done with data services.
import type { Action } from '../api/action';
import type { Schema } from '../api/client';

/** What the form of a new data service asks for. */
export interface NewDataService {
  name: string;
  cluster: string;
  engine: string;
  version: string;
  replicas: number;
  synchronous: boolean;
  cpu: string;
  memory: string;
  storage: string;
  protection: boolean;
}

type Wish = Omit<Schema['CreateDataService'], 'spec'> & { spec: object };

/** The request for the wish. What is left at its default is said all the same: a plan shows it. */
export function wishOf(form: NewDataService): Wish {
  const spec = {
    engine: form.engine,
    version: form.version,
    topology: { replicas: form.replicas, synchronous: form.synchronous && form.replicas > 1 },
    resources: { cpu: form.cpu, memory: form.memory },
    storage: { size: form.storage },
    deletion: { protection: form.protection },
  };
  return { name: form.name, cluster: form.cluster, spec };
}

export function createDataService(form: NewDataService): Action {
  const body = wishOf(form);
  return {
    method: 'POST',
    path: '/data-services',
    body,
    cli: ['culvert', 'data-service', 'create', ...flags(form)],
    manifest: {
      apiVersion: 'data.culvert.dev/v1alpha1',
      kind: 'DataService',
      metadata: { name: form.name },
      spec: body.spec,
    },
  };
}

/** The same request, only to be told what it would do. */
export function planDataService(form: NewDataService): Action {
  const cli = ['culvert', 'data-service', 'create', ...flags(form), '--dry-run'];
  return { method: 'POST', path: '/data-services/plan', body: wishOf(form), cli };
}

function flags(form: NewDataService): string[] {
  const words = [form.name, '--cluster', form.cluster, '--engine', form.engine, '--version', form.version];
  words.push('--replicas', String(form.replicas), '--cpu', form.cpu, '--memory', form.memory);
  words.push('--storage', form.storage);
  if (form.synchronous && form.replicas > 1) words.push('--synchronous');
  if (form.protection) words.push('--protect');
  return words;
}

/** An action on a service that exists and needs no more than its name. */
export function onDataService(which: string, verb: 'restart' | 'stop' | 'start'): Action {
  const path = `/data-services/${encodeURIComponent(which)}/${verb}`;
  return { method: 'POST', path, cli: ['culvert', 'data-service', verb, which] };
}
