// A state as a badge.
import { Icon } from './Icon';
import { lookOf } from './state';

export function State({ of, word }: { of: string; word?: string }) {
  const look = lookOf(of);
  return (
    <span className={`tone tone-${look.tone}`}>
      <Icon name={look.icon} size={13} />
      {word ?? look.word}
    </span>
  );
}
