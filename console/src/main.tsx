// Begins the console.
import '@mantine/core/styles.css';
import '@mantine/spotlight/styles.css';
import './styles.css';

import { localStorageColorSchemeManager, MantineProvider } from '@mantine/core';
import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { Problem } from './api/problem';
import { makeRouter } from './router';
import { sessionEnded } from './shell/session';
import { theme, variables } from './theme';

// The page's nonce, for the style sheets that libraries write: Mantine asks for it, and what it
// stands on for scrolling looks in this global.
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? '';
Object.assign(globalThis, { __webpack_nonce__: nonce });

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      retry: (count, error) => error instanceof Problem && error.passing && count < 3,
    },
  },
  queryCache: new QueryCache({ onError: noticeEnd }),
  mutationCache: new MutationCache({ onError: noticeEnd }),
});

/** A session that ended while somebody worked: who never had one is sent to sign in instead. */
function noticeEnd(error: unknown): void {
  const had = queries.getQueryData(['me']) !== undefined;
  if (error instanceof Problem && error.status === 401 && had) sessionEnded(true);
}

const router = makeRouter(queries);
const colours = localStorageColorSchemeManager({ key: 'culvert-theme' });
const root = document.getElementById('root');
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <MantineProvider
        theme={theme}
        cssVariablesResolver={variables}
        defaultColorScheme="auto"
        colorSchemeManager={colours}
        getStyleNonce={() => nonce}
      >
        <QueryClientProvider client={queries}>
          <RouterProvider router={router} />
        </QueryClientProvider>
      </MantineProvider>
    </StrictMode>,
  );
}
