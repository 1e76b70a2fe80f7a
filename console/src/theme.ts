// Colours and sizes. Mantine's own dimmed and status colours fall below AA in places, so both
// themes name theirs here; axe checks them on every screen.
import { createTheme, Modal, type CSSVariablesResolver, type MantineColorsTuple } from '@mantine/core';

const teal: MantineColorsTuple = [
  '#e6f7f8',
  '#cfebee',
  '#9fd8dd',
  '#6cc3cb',
  '#43b1bb',
  '#2aa6b1',
  '#178d99',
  '#0b7481',
  '#0b5c6b',
  '#064855',
];

// Of the ground's own hue; Mantine's greys are brown beside it.
const dark: MantineColorsTuple = [
  '#dfe6ea',
  '#b5c1ca',
  '#a3b0ba',
  '#7d8b96',
  '#3a4650',
  '#2b353d',
  '#232c33',
  '#1c2329',
  '#171d22',
  '#10151a',
];

export const theme = createTheme({
  primaryColor: 'culvert',
  primaryShade: { light: 8, dark: 8 },
  colors: { culvert: teal, dark },
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace',
  defaultRadius: 'md',
  components: {
    // A dialog's head is no banner of the page, and its cross needs a name.
    Modal: Modal.extend({
      defaultProps: {
        closeButtonProps: { 'aria-label': 'Close' },
        attributes: { header: { role: 'presentation' } },
      },
    }),
  },
  headings: { fontWeight: '650', sizes: { h1: { fontSize: '1.5rem' }, h2: { fontSize: '1.05rem' } } },
});

export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    '--mantine-color-dimmed': '#566370',
    '--mantine-color-placeholder': '#66727e',
    '--mantine-color-anchor': '#0b5c6b',
    '--mantine-color-error': '#b3261e',
    '--culvert-ground': '#f6f8f9',
    '--culvert-card': '#ffffff',
    '--culvert-line': '#dde3e7',
    '--culvert-hover': '#eef3f5',
    '--tone-good': '#0f6b3a',
    '--tone-good-back': '#dff5e8',
    '--tone-busy': '#0b568c',
    '--tone-busy-back': '#dfeefb',
    '--tone-warn': '#7a4a00',
    '--tone-warn-back': '#fdf0d5',
    '--tone-bad': '#a3211a',
    '--tone-bad-back': '#fde7e5',
    '--tone-off': '#4d5a66',
    '--tone-off-back': '#e8edf0',
  },
  dark: {
    '--mantine-color-body': '#14191d',
    '--mantine-color-text': '#dfe6ea',
    '--mantine-color-dimmed': '#a3b0ba',
    '--mantine-color-placeholder': '#94a2ad',
    '--mantine-color-anchor': '#7fd6de',
    '--mantine-color-error': '#ff9d94',
    '--culvert-ground': '#14191d',
    '--culvert-card': '#1c2329',
    '--culvert-line': '#2f3a43',
    '--culvert-hover': '#242d34',
    '--tone-good': '#7fe0a6',
    '--tone-good-back': '#123524',
    '--tone-busy': '#8cc8f7',
    '--tone-busy-back': '#12304a',
    '--tone-warn': '#f5c977',
    '--tone-warn-back': '#3d2d0c',
    '--tone-bad': '#ff9d94',
    '--tone-bad-back': '#471b18',
    '--tone-off': '#b5c1ca',
    '--tone-off-back': '#2b353d',
  },
});
