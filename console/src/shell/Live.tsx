// Whether what the page shows follows by itself, always in sight.
import { Tooltip } from '@mantine/core';

import { Icon } from '../ui/Icon';

export function LiveBadge({ live }: { live: boolean }) {
  const label = live
    ? 'Changes appear here by themselves'
    : 'The stream of changes is interrupted; it comes back by itself';
  return (
    <Tooltip label={label}>
      <span className={`tone tone-${live ? 'good' : 'warn'}`} role="status" data-live={live}>
        <Icon name={live ? 'check' : 'wait'} size={13} />
        {live ? 'Live' : 'Reconnecting'}
      </span>
    </Tooltip>
  );
}
