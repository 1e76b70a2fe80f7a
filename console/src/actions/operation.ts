// What can be done with operations.
import type { Action } from '../api/action';

export function cancelOperation(id: string): Action {
  return { method: 'POST', path: `/operations/${id}/cancel`, cli: ['culvert', 'operation', 'cancel', id] };
}

export function retryOperation(id: string): Action {
  return { method: 'POST', path: `/operations/${id}/retry`, cli: ['culvert', 'operation', 'retry', id] };
}
