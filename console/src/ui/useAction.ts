// Sends an action once, however often the button is pressed or the network fails.
import { useMutation } from '@tanstack/react-query';
import { useRef } from 'react';

import { send, type Action } from '../api/action';

/** `done` gets what the API answered. A repetition of the same wish carries the same key. */
export function useAction<T>(done: (answer: T) => void | Promise<void>) {
  const wish = useRef({ text: '', key: '' });
  return useMutation({
    mutationFn: async (action: Action) => {
      const text = JSON.stringify([action.method, action.path, action.body]);
      if (wish.current.text !== text) wish.current = { text, key: crypto.randomUUID() };
      return (await send(action, action.method === 'POST' ? wish.current.key : undefined)) as T;
    },
    onSuccess: async (answer) => {
      wish.current = { text: '', key: '' };
      await done(answer);
    },
  });
}
