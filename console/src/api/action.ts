// What a button sends, as a value: the same that the page shows as a command.
import { Problem } from './problem';

export interface Action {
  method: 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below `/api/v1`, with a slash. */
  path: string;
  body?: object;
  /** The same on the command line, word by word. */
  cli: string[];
  /** The same as an object for `culvert apply` or `kubectl apply`, where there is one. */
  manifest?: object;
}

/** Sends an action. `once` names the wish: sent again, it is not done again. */
export async function send(action: Action, once?: string): Promise<unknown> {
  const headers: Record<string, string> = {};
  if (action.body !== undefined) headers['content-type'] = 'application/json';
  if (once !== undefined) headers['idempotency-key'] = once;
  let response: Response;
  try {
    const body = action.body === undefined ? null : JSON.stringify(action.body);
    response = await fetch(`/api/v1${action.path}`, { method: action.method, headers, body });
  } catch {
    throw Problem.unreachable();
  }
  const text = await response.text();
  const answered = parsed(text);
  if (!response.ok) throw Problem.of(response.status, answered, response.headers.get('x-request-id'));
  return answered;
}

function parsed(text: string): unknown {
  try {
    return text === '' ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
