// A data service's spec and status as the operator's resources have them: the API hands them on
// verbatim, so the types of what is read here stand here.
import type { Schema } from './client';

export interface Spec {
  engine: string;
  version: string;
  topology?: { replicas?: number; synchronous?: boolean };
  resources?: { cpu?: string; memory?: string };
  storage?: { size?: string; class?: string; growthLimit?: string };
  backup?: { target?: string; archive?: boolean };
  maintenance?: { cron: string; minutes?: number; timeZone?: string };
  deletion?: { protection?: boolean };
}

export interface Status {
  readyReplicas?: string;
  why?: { code: string; message: string; who: string; next: string; object?: string };
  endpoints?: { name: string; host: string; port: number }[];
  version?: { running?: string; available?: string };
  recoverable?: { from?: string; to?: string };
  lastBackup?: { name: string; at: string; verified: boolean };
  pendingChanges?: { field: string; from?: string; to?: string; effect: string; waitsFor: string }[];
  currentOperation?: string;
  dataBytes?: number;
}

export interface Plan {
  summary: string;
  changes: { field: string; from?: string; to?: string; effect: string; note?: string }[];
  faults: { field?: string; code: string; message: string; next?: string }[];
  warnings: string[];
}

type DataService = Schema['DataService'];

export const specOf = (service: DataService) => service.spec as unknown as Spec;
export const statusOf = (service: DataService) => (service.status ?? {}) as Status;
export const planOf = (answer: Schema['DataServicePlan']) => answer.plan as unknown as Plan;
