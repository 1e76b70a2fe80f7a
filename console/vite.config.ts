// How the console is built and its units are tested.
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [react()],
  // The controller puts a nonce of its own in this place, for each page.
  html: { cspNonce: '__CSP_NONCE__' },
  build: {
    // Its .gitignore stays, so that cargo finds the folder; build/clean.mjs removes the rest.
    emptyOutDir: false,
    // A data: address would break the policy of the page.
    assetsInlineLimit: 0,
    sourcemap: false,
    target: 'es2023',
  },
  server: { proxy: { '/api': { target: 'https://127.0.0.1:8443', secure: false } } },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.{ts,tsx}'],
    setupFiles: ['src/test/setup.ts'],
    restoreMocks: true,
  },
});
