// What goes wrong, in one shape: the API's own problem, or that it could not be asked.
import type { components } from './schema';

export type ProblemBody = components['schemas']['Problem'];

/** Why a request did not succeed. `status` is 0 when no answer came. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly next: string | undefined;
  readonly requestId: string | undefined;
  readonly fields: ProblemBody['errors'];

  constructor(status: number, body: Partial<ProblemBody>) {
    super(body.detail ?? 'the controller gave no reason');
    this.name = 'Problem';
    this.status = status;
    this.code = body.code ?? 'unknown';
    this.next = body.next ?? undefined;
    this.requestId = body.request_id;
    this.fields = body.errors ?? [];
  }

  /** No answer came: the network, or the controller, is away. */
  static unreachable(): Problem {
    return new Problem(0, {
      code: 'unreachable',
      detail: 'the controller does not answer',
      next: 'check your network; this page tries again by itself',
    });
  }

  /** What an answer that is not a success says, whoever wrote it. */
  static of(status: number, body: unknown, requestId: string | null): Problem {
    if (isProblem(body)) return new Problem(status, body);
    const from = requestId === null ? 'something between you and the controller' : 'the controller';
    return new Problem(status, {
      code: `http_${status}`,
      detail: `${from} answered with status ${status}`,
      request_id: requestId ?? undefined,
    });
  }

  /** Whether asking again can help. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** What is wrong with one field of the request. */
  field(name: string): string | undefined {
    return this.fields.find((one) => one.field === name)?.detail;
  }
}

function isProblem(body: unknown): body is ProblemBody {
  return typeof body === 'object' && body !== null && 'code' in body && 'detail' in body;
}

/** Any failure as a problem, for what shows it. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new Problem(-1, {
    code: 'console',
    detail: `the console failed: ${detail}`,
    next: 'load the page again',
  });
}
