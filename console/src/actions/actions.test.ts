import { expect, it } from 'vitest';

import { apiLine } from '../ui/CommandPreview';
import { createCluster, createJoinToken, labelsOf } from './cluster';
import { createDataService, planDataService, type NewDataService } from './dataService';

const form: NewDataService = {
  name: 'orders',
  cluster: 'edge',
  engine: 'postgresql',
  version: '17',
  replicas: 3,
  synchronous: true,
  cpu: '500m',
  memory: '1Gi',
  storage: '10Gi',
  protection: true,
};

it('says the same in the request, the command and the manifest', () => {
  const action = createDataService(form);
  expect(action.body).toMatchObject({
    name: 'orders',
    cluster: 'edge',
    spec: { topology: { synchronous: true } },
  });
  expect(action.cli.join(' ')).toBe(
    'culvert data-service create orders --cluster edge --engine postgresql --version 17 --replicas 3 ' +
      '--cpu 500m --memory 1Gi --storage 10Gi --synchronous --protect',
  );
  expect(action.manifest).toMatchObject({
    metadata: { name: 'orders' },
    spec: action.body && (action.body as { spec: object }).spec,
  });
  expect(planDataService(form).body).toEqual(action.body);
});

it('asks one instance for nothing that needs two', () => {
  const action = createDataService({ ...form, replicas: 1 });
  expect(action.cli).not.toContain('--synchronous');
  expect(action.body).toMatchObject({ spec: { topology: { replicas: 1, synchronous: false } } });
});

it('reads labels, and leaves out what is none', () => {
  expect(labelsOf(' site=graz, x, =y,tier=1')).toEqual({ site: 'graz', tier: '1' });
  expect(createCluster({ name: 'e', labels: { site: 'graz' } }).cli.slice(3)).toEqual([
    'e',
    '--label',
    'site=graz',
  ]);
  expect(createJoinToken('e', { ttl_seconds: 900 }).cli.slice(-2)).toEqual(['--ttl', '15m']);
});

it('shows the very body that is sent', () => {
  const line = apiLine(createCluster({ name: 'edge' }));
  expect(line).toBe(`culvert api POST clusters --data - <<'END'\n{\n  "name": "edge"\n}\nEND`);
});
