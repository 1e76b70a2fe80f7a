// What the pages ask of the API. Keys begin with the noun, then `list` or `one`: the stream of
// changes finds them by that.
import { queryOptions } from '@tanstack/react-query';

import { client, data } from './client';

export const me = queryOptions({
  queryKey: ['me'],
  queryFn: ({ signal }) => data(client.GET('/api/v1/me', { signal })),
  staleTime: 60_000,
});

export const info = queryOptions({
  queryKey: ['info'],
  queryFn: ({ signal }) => data(client.GET('/api/v1/info', { signal })),
  staleTime: Infinity,
});

/** How many rows of a list are fetched at once. */
export const PAGE = 100;

export interface ClusterFilter {
  name?: string;
  state?: string;
}

export const clusters = (query: ClusterFilter = {}) =>
  queryOptions({
    queryKey: ['clusters', 'list', query],
    queryFn: ({ signal }) =>
      data(client.GET('/api/v1/clusters', { signal, params: { query: { ...query, limit: PAGE } } })),
  });

export const cluster = (which: string) =>
  queryOptions({
    queryKey: ['clusters', 'one', which],
    queryFn: ({ signal }) =>
      data(client.GET('/api/v1/clusters/{cluster}', { signal, params: { path: { cluster: which } } })),
  });

export const diagnosis = (which: string) =>
  queryOptions({
    queryKey: ['clusters', 'diagnosis', which],
    queryFn: ({ signal }) =>
      data(
        client.GET('/api/v1/clusters/{cluster}/diagnosis', { signal, params: { path: { cluster: which } } }),
      ),
  });

export const clusterEngines = (which: string) =>
  queryOptions({
    queryKey: ['clusters', 'engines', which],
    queryFn: ({ signal }) =>
      data(
        client.GET('/api/v1/clusters/{cluster}/engines', { signal, params: { path: { cluster: which } } }),
      ),
  });

export interface DataServiceFilter {
  name?: string;
  state?: string;
  cluster?: string;
}

export const dataServices = (query: DataServiceFilter = {}) =>
  queryOptions({
    queryKey: ['data-services', 'list', query],
    queryFn: ({ signal }) =>
      data(client.GET('/api/v1/data-services', { signal, params: { query: { ...query, limit: PAGE } } })),
  });

export const dataService = (which: string) =>
  queryOptions({
    queryKey: ['data-services', 'one', which],
    queryFn: ({ signal }) =>
      data(
        client.GET('/api/v1/data-services/{data_service}', {
          signal,
          params: { path: { data_service: which } },
        }),
      ),
  });

export interface OperationFilter {
  state?: string;
  subject?: string;
  kind?: string;
}

export const operations = (query: OperationFilter = {}) =>
  queryOptions({
    queryKey: ['operations', 'list', query],
    queryFn: ({ signal }) =>
      data(client.GET('/api/v1/operations', { signal, params: { query: { ...query, limit: PAGE } } })),
  });

export const operation = (which: string) =>
  queryOptions({
    queryKey: ['operations', 'one', which],
    queryFn: ({ signal }) =>
      data(client.GET('/api/v1/operations/{operation}', { signal, params: { path: { operation: which } } })),
  });
