//! Driving operations: one turn at a time, each short, each by whoever holds the claim.
//!
//! A turn claims an operation that is due, does step after step until one has to wait, writes
//! how it went and lets go. Nothing is kept between turns but what is stored, so a process that
//! was killed leaves at most a claim that runs out; the next turn sees the step that was begun
//! and does it again. Steps are therefore idempotent, and a step is stored as begun before it
//! acts: what was never begun was never done.
//!
//! Somebody who cancels or deletes meanwhile seizes the operation: the next write of this turn
//! is not heard, and it stops. The claim lasts until then, so nobody acts beside it.
//!
//! Mistakes a newcomer could make:
//! - ending an operation for a failure that may pass. [`Went::Refused`] is for what an API
//!   server or the operator said for good; everything else is [`Went::Waiting`].
//! - holding a transaction while a cluster is asked.
//! - remembering in memory what a later step needs: put it into the operation's `intent`.

pub(super) mod data_services;
mod observe;
mod undo;
mod work;

pub(super) use data_services::{Place, manifest};

use std::time::Duration;

use super::in_cluster::Trouble;
use super::operations::operation_view;
use super::{App, Error};
use crate::domain::operation::Went;
use crate::domain::{Act, Caller, ClusterId, Operation, OperationId, OperationState, SubjectKind};
use crate::store::{DueOperation, OrgTx, StoreError};

/// How long a claim lasts after each write.
const CLAIM: time::Duration = time::Duration::seconds(30);
/// How long a step may take: well below the claim.
const STEP: Duration = Duration::from_secs(20);

/// Why a turn stopped before its time.
enum Stopped {
    /// Somebody seized the operation.
    Seized,
    /// It could not be written.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::from(Error::from(error))
    }
}

impl App {
    /// Operations that are due and that nobody drives, without those in `busy` clusters.
    pub async fn due_operations(&self, busy: &[ClusterId], limit: u64) -> Result<Vec<DueOperation>, Error> {
        Ok(self.store().due_operations(self.now(), busy, limit).await?)
    }

    /// One turn of an operation, if it can be claimed. `true` when there was one.
    pub async fn drive(&self, due: DueOperation) -> Result<bool, Error> {
        let caller = Caller::controller(due.org);
        let Some(mut operation) = self.claim(&caller, due.id).await? else { return Ok(false) };
        match self.turn(&caller, &mut operation).await {
            Ok(()) => Ok(true),
            Err(Stopped::Failed(error)) => Err(error),
            Err(Stopped::Seized) => {
                let tx = self.store().write(&caller).await?;
                tx.leave_operation(&operation).await?;
                tx.commit().await?;
                Ok(true)
            }
        }
    }

    async fn claim(&self, caller: &Caller, id: OperationId) -> Result<Option<Operation>, Error> {
        let now = self.now();
        let tx = self.store().write(caller).await?;
        let claimed = tx.claim_operation(id, now, now + CLAIM).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn turn(&self, caller: &Caller, operation: &mut Operation) -> Result<(), Stopped> {
        loop {
            let before = operation.clone();
            if operation.expire(self.now()) {
                return self.keep(caller, &before, operation, false).await;
            }
            if operation.state == OperationState::Cancelling {
                self.undo(caller, operation).await;
                return self.keep(caller, &before, operation, false).await;
            }
            operation.enter(self.now());
            if *operation != before {
                self.keep(caller, &before, operation, true).await?;
            }
            let (before, step) = (operation.clone(), operation.current().map(|step| step.name.clone()));
            let went = self.step(caller, operation, &step.unwrap_or_default()).await;
            let waits = matches!(went, Went::Waiting(_));
            operation.went(went, self.now());
            let go_on = !waits && !operation.state.is_over();
            self.keep(caller, &before, operation, go_on).await?;
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Does a step, for as long as a step may take.
    async fn step(&self, caller: &Caller, operation: &mut Operation, step: &str) -> Went {
        let act = async {
            match operation.subject.kind {
                SubjectKind::DataService => self.data_service_step(caller, operation, step).await,
                SubjectKind::Backup | SubjectKind::Restore => self.work_step(caller, operation, step).await,
            }
        };
        match tokio::time::timeout(STEP, act).await {
            Ok(Ok(went)) => went,
            Ok(Err(Trouble::Never(failure))) => Went::Refused(failure),
            Ok(Err(trouble)) => Went::Waiting(trouble.to_string()),
            Err(_) => Went::Waiting(format!("the cluster did not answer within {} s", STEP.as_secs())),
        }
    }

    /// Writes how it went, with the claim going on or let go; tells the watchers.
    async fn keep(
        &self,
        caller: &Caller,
        before: &Operation,
        operation: &Operation,
        go_on: bool,
    ) -> Result<(), Stopped> {
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if !tx.put_operation(operation, go_on.then_some(now + CLAIM)).await? {
            return Err(Stopped::Seized);
        }
        if operation.state != before.state {
            audit_end(&tx, operation, now).await?;
        }
        tx.commit().await?;
        if shows_more(before, operation) {
            let view = operation_view(&self.store().org(caller), operation.clone()).await?;
            self.publish_operation(caller, &view);
            if operation.state != before.state && operation.subject.kind == SubjectKind::DataService {
                let id = operation.subject.id.parse().map_err(Error::from)?;
                self.publish_data_service(caller, id).await;
            }
        }
        Ok(())
    }
}

/// Whether a watcher would see a difference.
fn shows_more(before: &Operation, after: &Operation) -> bool {
    (before.state, &before.steps, &before.progress) != (after.state, &after.steps, &after.progress)
}

async fn audit_end(tx: &OrgTx, operation: &Operation, now: crate::domain::Time) -> Result<(), StoreError> {
    let (act, detail) = match (operation.state, &operation.failure) {
        (OperationState::Succeeded, _) => (Act::OperationSucceeded, String::new()),
        (OperationState::Failed, Some(failure)) => (Act::OperationFailed, failure.code.clone()),
        _ => return Ok(()),
    };
    let detail = format!("{} {} {detail}", operation.kind.as_str(), operation.subject.id);
    tx.audit(act, operation.id, detail.trim_end(), now).await
}
