// Signing in with a one-time code: on a page of its own, or over the page that one was on.
import { Button, Stack, Text, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';

import { client, data } from '../api/client';
import { Failure } from '../ui/Notice';

export function SignInForm({ done }: { done: () => void }) {
  const [code, setCode] = useState('');
  const signIn = useMutation({
    mutationFn: () => data(client.POST('/api/v1/sessions', { body: { code: code.trim() } })),
    onSuccess: done,
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        signIn.mutate();
      }}
    >
      <Stack>
        <TextInput
          label="One-time code"
          description="From the controller's first start, or from culvert-controller sign-in-code on its machine. A code works once."
          placeholder="XXXX-XXXX-XXXX"
          autoComplete="one-time-code"
          autoCapitalize="characters"
          spellCheck={false}
          data-autofocus
          autoFocus
          value={code}
          onChange={(event) => setCode(event.currentTarget.value)}
          className="code-field"
        />
        {signIn.error !== null && <Failure error={signIn.error} />}
        <Button type="submit" loading={signIn.isPending} disabled={code.trim() === ''}>
          Sign in
        </Button>
        <Text size="xs" c="dimmed">
          No code? Whoever runs the controller can make one for you.
        </Text>
      </Stack>
    </form>
  );
}
