// Writes plain values as YAML that `culvert apply` and kubectl read.

/** A value as YAML in block style; text is quoted unless it is a plain word. */
export function yaml(value: unknown, indent = ''): string {
  if (Array.isArray(value)) {
    return value.map((one) => `${indent}- ${yaml(one, `${indent}  `).trimStart()}`).join('');
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(([, one]) => one !== undefined);
    return entries.map(([key, one]) => `${indent}${scalar(key)}:${child(one, indent)}`).join('');
  }
  return `${indent}${scalar(value)}\n`;
}

function child(value: unknown, indent: string): string {
  const deep = typeof value === 'object' && value !== null;
  if (!deep) return ` ${scalar(value)}\n`;
  if (Object.keys(value).length === 0) return Array.isArray(value) ? ' []\n' : ' {}\n';
  return `\n${yaml(value, `${indent}  `)}`;
}

function scalar(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value);
  const words = ['true', 'false', 'null', 'yes', 'no', 'on', 'off', 'y', 'n'];
  const plain = /^[A-Za-z][A-Za-z0-9_./-]*$/.test(value) && !words.includes(value.toLowerCase());
  return plain ? value : JSON.stringify(value);
}
