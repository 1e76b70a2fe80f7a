// The page that somebody sees who is not signed in.
import { Box, Center, Group, Stack, Text, Title } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';

import { sessionEnded } from '../shell/session';
import { SignInForm } from '../shell/SignInForm';

export function SignIn() {
  const { next } = useSearch({ from: '/sign-in' });
  const go = useNavigate();
  const queries = useQueryClient();
  const done = async () => {
    sessionEnded(false);
    queries.clear();
    await go({ to: next ?? '/', replace: true });
  };
  return (
    <Center mih="100vh" p="md" component="main">
      <Stack w={400} maw="100%" gap="lg">
        <Group gap="sm">
          <img src="/icon.svg" alt="" width={40} height={40} />
          <Box>
            <Title order={1}>Culvert</Title>
            <Text c="dimmed" size="sm">
              Databases in clusters that nobody can dial into
            </Text>
          </Box>
        </Group>
        <Box className="card padded">
          <SignInForm done={() => void done()} />
        </Box>
      </Stack>
    </Center>
  );
}
