// The way to the API: typed by its own document, failures as problems.
import createClient from 'openapi-fetch';

import { Problem } from './problem';
import type { components, paths } from './schema';

export type Schema = components['schemas'];

async function reach(request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw Problem.unreachable();
  }
}

export const client = createClient<paths>({ baseUrl: '', fetch: reach });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The data of an answer, or the problem it tells. */
export async function data<T>(asked: Promise<Answer<T>>): Promise<NonNullable<T>> {
  const answer = await asked;
  if (answer.data === undefined || answer.data === null) {
    throw Problem.of(answer.response.status, answer.error, answer.response.headers.get('x-request-id'));
  }
  return answer.data;
}
