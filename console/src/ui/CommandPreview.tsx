// The same as a button, for the command line, the API or a manifest: made from the very action
// that the button sends, so that the two cannot differ.
import { Box, Button, Code, CopyButton, Group, Tabs, Text } from '@mantine/core';

import type { Action } from '../api/action';
import { Icon } from './Icon';
import { shellLine } from './shell';
import { yaml } from './yaml';

/** The action as a call of the API by the command line's own session: no token in sight. */
export function apiLine(action: Action): string {
  const words = ['culvert', 'api', action.method, action.path.slice(1)];
  if (action.body === undefined) return shellLine(words);
  return `${shellLine([...words, '--data', '-'])} <<'END'\n${JSON.stringify(action.body, null, 2)}\nEND`;
}

export function CommandPreview({
  action,
  title = 'The same as a command',
}: {
  action: Action;
  title?: string;
}) {
  return (
    <Box>
      <Text size="sm" fw={600} mb={4}>
        {title}
      </Text>
      <Tabs defaultValue="cli" variant="outline" keepMounted={false}>
        <Tabs.List aria-label={title}>
          <Tabs.Tab value="cli">Command line</Tabs.Tab>
          <Tabs.Tab value="api">API</Tabs.Tab>
          {action.manifest !== undefined && <Tabs.Tab value="yaml">YAML</Tabs.Tab>}
        </Tabs.List>
        <Tabs.Panel value="cli" pt="xs">
          <Copied text={shellLine(action.cli)} />
        </Tabs.Panel>
        <Tabs.Panel value="api" pt="xs">
          <Copied text={apiLine(action)} />
        </Tabs.Panel>
        {action.manifest !== undefined && (
          <Tabs.Panel value="yaml" pt="xs">
            <Copied text={yaml(action.manifest)} />
          </Tabs.Panel>
        )}
      </Tabs>
    </Box>
  );
}

/** Text in a block with a button that copies it. */
export function Copied({ text, label = 'Copy' }: { text: string; label?: string }) {
  return (
    <Box pos="relative">
      <Code block tabIndex={0} className="words command">
        {text}
      </Code>
      <Group justify="flex-end" mt={6}>
        <CopyButton value={text}>
          {({ copied, copy }) => (
            <Button
              size="compact-xs"
              variant="default"
              leftSection={<Icon name="copy" size={13} />}
              onClick={copy}
            >
              {copied ? 'Copied' : label}
            </Button>
          )}
        </CopyButton>
      </Group>
    </Box>
  );
}
