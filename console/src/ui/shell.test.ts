import { expect, it } from 'vitest';

import { shellLine } from './shell';

it('leaves nothing for a shell to read in its own way', () => {
  expect(shellLine(['culvert', 'cluster', 'create', 'edge-1', '--label', 'site=graz'])).toBe(
    'culvert cluster create edge-1 --label site=graz',
  );
  expect(shellLine(['x', '', "it's $(id)"])).toBe(`x '' 'it'\\''s $(id)'`);
});
