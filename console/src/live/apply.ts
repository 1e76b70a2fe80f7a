// Puts a change into what the pages hold. A row that is known is patched; when it may have moved
// into or out of a filtered list, the list is asked for again, never guessed.
import type { QueryClient } from '@tanstack/react-query';

interface Thing {
  id: string;
  state?: string;
  cluster_id?: string;
}

interface List {
  items: Thing[];
}

const NOUNS: Partial<Record<string, string>> = {
  cluster: 'clusters',
  data_service: 'data-services',
  operation: 'operations',
};

/** Puts one event into the cache. */
export function apply(queries: QueryClient, name: string, text: string): void {
  if (name === 'gap') {
    void queries.invalidateQueries();
    return;
  }
  const thing = JSON.parse(text) as Thing;
  const noun = NOUNS[name];
  if (noun !== undefined) patch(queries, noun, thing);
  follow(queries, name);
}

function patch(queries: QueryClient, noun: string, thing: Thing): void {
  queries.setQueriesData<Thing>({ queryKey: [noun, 'one'] }, (known) =>
    known?.id === thing.id ? thing : known,
  );
  for (const [key, list] of queries.getQueriesData<List>({ queryKey: [noun, 'list'] })) {
    if (list === undefined) continue;
    const before = list.items.find((one) => one.id === thing.id);
    if (before === undefined || before.state !== thing.state) {
      void queries.invalidateQueries({ queryKey: key });
    } else {
      queries.setQueryData<List>(key, {
        ...list,
        items: list.items.map((one) => (one.id === thing.id ? thing : one)),
      });
    }
  }
}

/** What else an event makes out of date. */
function follow(queries: QueryClient, name: string): void {
  if (name === 'agent') void queries.invalidateQueries({ queryKey: ['clusters'] });
  if (name === 'attempt' || name === 'cluster')
    void queries.invalidateQueries({ queryKey: ['clusters', 'diagnosis'] });
  if (name === 'data_plane') void queries.invalidateQueries({ queryKey: ['clusters', 'engines'] });
  if (name === 'operation') void queries.invalidateQueries({ queryKey: ['data-services'] });
}
