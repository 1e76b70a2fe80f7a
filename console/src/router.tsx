// Every place of the console and what its URL carries.
import type { QueryClient } from '@tanstack/react-query';
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  Outlet,
  redirect,
  type ErrorComponentProps,
} from '@tanstack/react-router';

import { Problem } from './api/problem';
import { me } from './api/queries';
import { Cluster } from './pages/Cluster';
import { Clusters } from './pages/Clusters';
import { ConnectCluster } from './pages/ConnectCluster';
import { DataService } from './pages/DataService';
import { DataServices } from './pages/DataServices';
import { Home } from './pages/Home';
import { NewCluster } from './pages/NewCluster';
import { NewDataService } from './pages/NewDataService';
import { Operation } from './pages/Operation';
import { Operations } from './pages/Operations';
import { SignIn } from './pages/SignIn';
import { Frame } from './shell/Frame';
import { Failure, Notice } from './ui/Notice';

const root = createRootRouteWithContext<{ queries: QueryClient }>()({ component: Outlet });

/** A word of the URL, when it is one. */
const word = (search: Record<string, unknown>, name: string): string | undefined => {
  const value = search[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
};

/** Only a place of the console itself: whoever wrote the link must not choose another site. */
const place = (text: string | undefined) =>
  text !== undefined && /^\/(?![/\\])/.test(text) ? text : undefined;

const signIn = createRoute({
  getParentRoute: () => root,
  path: '/sign-in',
  validateSearch: (search: Record<string, unknown>): { next?: string | undefined } => ({
    next: place(word(search, 'next')),
  }),
  component: SignIn,
});

const app = createRoute({
  getParentRoute: () => root,
  id: 'app',
  beforeLoad: async ({ context, location }) => {
    try {
      await context.queries.query({ ...me, staleTime: 'static' });
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error;
      const next = location.href === '/' ? undefined : location.href;
      throw redirect({ to: '/sign-in', search: { next } });
    }
  },
  component: Frame,
});

const home = createRoute({ getParentRoute: () => app, path: '/', component: Home });

const clusters = createRoute({
  getParentRoute: () => app,
  path: '/clusters',
  validateSearch: (
    search: Record<string, unknown>,
  ): { name?: string | undefined; state?: string | undefined } => ({
    name: word(search, 'name'),
    state: word(search, 'state'),
  }),
  component: Clusters,
});
const newCluster = createRoute({ getParentRoute: () => app, path: '/clusters/new', component: NewCluster });
const cluster = createRoute({ getParentRoute: () => app, path: '/clusters/$cluster', component: Cluster });
const connectCluster = createRoute({
  getParentRoute: () => app,
  path: '/clusters/$cluster/connect',
  component: ConnectCluster,
});

const dataServices = createRoute({
  getParentRoute: () => app,
  path: '/data-services',
  validateSearch: (
    search: Record<string, unknown>,
  ): { name?: string | undefined; state?: string | undefined; cluster?: string | undefined } => ({
    name: word(search, 'name'),
    state: word(search, 'state'),
    cluster: word(search, 'cluster'),
  }),
  component: DataServices,
});
const newDataService = createRoute({
  getParentRoute: () => app,
  path: '/data-services/new',
  validateSearch: (search: Record<string, unknown>): { cluster?: string | undefined } => ({
    cluster: word(search, 'cluster'),
  }),
  component: NewDataService,
});
const dataService = createRoute({
  getParentRoute: () => app,
  path: '/data-services/$service',
  component: DataService,
});

const operations = createRoute({
  getParentRoute: () => app,
  path: '/operations',
  validateSearch: (
    search: Record<string, unknown>,
  ): { state?: string | undefined; subject?: string | undefined; kind?: string | undefined } => ({
    state: word(search, 'state'),
    subject: word(search, 'subject'),
    kind: word(search, 'kind'),
  }),
  component: Operations,
});
const operation = createRoute({
  getParentRoute: () => app,
  path: '/operations/$operation',
  component: Operation,
});

const tree = root.addChildren([
  signIn,
  app.addChildren([
    home,
    clusters,
    newCluster,
    cluster,
    connectCluster,
    dataServices,
    newDataService,
    dataService,
    operations,
    operation,
  ]),
]);

export function makeRouter(queries: QueryClient) {
  return createRouter({
    routeTree: tree,
    context: { queries },
    defaultPreload: 'intent',
    scrollRestoration: true,
    defaultErrorComponent: Broken,
    defaultNotFoundComponent: () => <Notice tone="off" title="There is no such page" />,
  });
}

function Broken({ error, reset }: ErrorComponentProps) {
  return (
    <main className="padded">
      <Failure error={error} again={reset} />
    </main>
  );
}

declare module '@tanstack/react-router' {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
