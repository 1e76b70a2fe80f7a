// Whether changes arrive by themselves, and the wire between the stream and the pages.
import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';

import { apply } from './apply';
import { share } from './share';

/** Follows the stream while the component lives; tells whether it lives too. */
export function useLive(): boolean {
  const queries = useQueryClient();
  const [live, setLive] = useState(false);
  useEffect(
    () =>
      share({
        live: setLive,
        event: (event) => apply(queries, event.name, event.data),
        began: () => void queries.invalidateQueries(),
      }),
    [queries],
  );
  return live;
}
