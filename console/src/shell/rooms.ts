// The rooms of the console, for the menu and the palette.
import type { IconName } from '../ui/Icon';

export const ROOMS: {
  to: '/' | '/data-services' | '/clusters' | '/operations';
  label: string;
  icon: IconName;
}[] = [
  { to: '/', label: 'Home', icon: 'home' },
  { to: '/data-services', label: 'Databases', icon: 'database' },
  { to: '/clusters', label: 'Clusters', icon: 'clusters' },
  { to: '/operations', label: 'Operations', icon: 'operations' },
];
