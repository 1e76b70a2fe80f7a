// Fails when the lock file names an address to download from: it would fix one registry.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const lock = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package-lock.json'), 'utf8'));
const named = Object.entries(lock.packages).filter(([, one]) => one.resolved);
for (const [name, one] of named) console.error(`${name}: ${one.resolved}`);
if (named.length > 0) process.exit(1);
