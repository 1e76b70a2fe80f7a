import { expect, it } from 'vitest';

import { yaml } from './yaml';

it('writes what parsers of YAML read as the same', () => {
  const value = {
    kind: 'DataService',
    metadata: { name: 'orders', labels: {} },
    spec: {
      version: '17',
      on: true,
      none: undefined,
      text: 'a: b #c\n"',
      words: ['no', 'x-1'],
      deep: [{ a: 1, b: null }],
    },
  };
  expect(yaml(value)).toBe(
    [
      'kind: DataService',
      'metadata:',
      '  name: orders',
      '  labels: {}',
      'spec:',
      '  version: "17"',
      '  "on": true',
      '  text: "a: b #c\\n\\""',
      '  words:',
      '    - "no"',
      '    - x-1',
      '  deep:',
      '    - a: 1',
      '      b: null',
      '',
    ].join('\n'),
  );
});
