// Compresses what the build made, tells its size, and fails when the entry is too large.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';

// Bytes of gzip that a first visit may cost: script, styles and all that they import at once.
const LIMIT = 300_000;
const dist = join(import.meta.dirname, '..', 'dist');
const page = readFileSync(join(dist, 'index.html'), 'utf8');
const files = readdirSync(dist, { recursive: true }).filter((name) => /\.(js|css|svg)$/.test(name));

let entry = 0;
for (const name of files) {
  const file = join(dist, name);
  const plain = readFileSync(file);
  const gzip = gzipSync(plain, { level: 9 });
  if (page.includes(`/${name}`)) entry += gzip.length;
  if (plain.length < 1024) continue;
  writeFileSync(`${file}.gz`, gzip);
  writeFileSync(`${file}.br`, brotliCompressSync(plain));
}

console.log(`first visit: ${Math.round(entry / 1000)} kB of gzip, of ${LIMIT / 1000} kB`);
if (entry > LIMIT) process.exit(1);
