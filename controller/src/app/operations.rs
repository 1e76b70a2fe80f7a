//! Operations: begin, look, cancel, retry.

use super::feed::News;
use super::{App, Error, require_admin};
use crate::domain::operation::expected;
use crate::domain::{
    Act, Caller, ClusterId, ClusterName, Cursor, Operation, OperationId, OperationKind, OperationState, Page,
    PageSize, Subject,
};
use crate::store::{OperationRows, OrgStore, OrgTx};

/// An operation as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationView {
    /// Its record.
    pub operation: Operation,
    /// Name of its cluster.
    pub cluster_name: Option<ClusterName>,
}

/// Which operations of a list are wanted.
pub type OperationFilter = OperationRows;

/// The cursor's name of this list.
const LIST: &str = "operations";

impl App {
    /// The caller's operations, newest first.
    pub async fn operations(
        &self,
        caller: &Caller,
        filter: &OperationFilter,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<OperationView>, Error> {
        let before: Option<OperationId> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let found = store.operations(filter, before, size.get() as u64 + 1).await?;
        let views = operation_views(&store, found).await?;
        Ok(Page::cut(views, size, LIST, |view| view.operation.id.to_string()))
    }

    /// One operation.
    pub async fn operation(&self, caller: &Caller, id: OperationId) -> Result<OperationView, Error> {
        let store = self.store().org(caller);
        let operation = store.operation(id).await?.ok_or(Error::NotFound("operation"))?;
        operation_view(&store, operation).await
    }

    /// Asks an operation to stop. What was not sent is taken back; what was sent is undone
    /// where that can be done, and else goes on in the cluster without being watched.
    pub async fn cancel_operation(&self, caller: &Caller, id: OperationId) -> Result<OperationView, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        let mut operation = tx.hold_operation(id).await?.ok_or(Error::NotFound("operation"))?;
        if operation.state == OperationState::Cancelling {
            drop(tx);
            return self.operation(caller, id).await;
        }
        if !operation.ask_to_stop(now) {
            let reason = format!("the operation has {} already", operation.state.as_str());
            return Err(Error::refused("operation_over", reason, "look at it: culvert operation get"));
        }
        if let Some(next) = no_way_back(operation.kind).filter(|_| operation.has_done("send")) {
            let reason = "the cluster was asked to delete it, and that cannot be taken back";
            return Err(Error::refused("too_late", reason, next));
        }
        tx.seize_operation(&mut operation).await?;
        tx.audit(Act::OperationCancelled, id, operation.kind.as_str(), now).await?;
        tx.commit().await?;
        self.operation_changed(caller, operation).await
    }

    /// Lets a failed operation go on from the step that failed, with a new deadline.
    pub async fn retry_operation(&self, caller: &Caller, id: OperationId) -> Result<OperationView, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        let mut operation = tx.hold_operation(id).await?.ok_or(Error::NotFound("operation"))?;
        let newest = tx.operations(&about(&operation.subject), None, 1).await?;
        if newest.first().is_some_and(|newest| newest.id != operation.id) {
            let reason = "there is a newer operation on the same thing";
            return Err(Error::refused("superseded", reason, "look at the newer one"));
        }
        if !operation.go_on(now) {
            let reason = format!(
                "only a failed operation can be tried again, and this one is {}",
                operation.state.as_str()
            );
            return Err(Error::refused("not_failed", reason, "ask for what you want anew"));
        }
        tx.seize_operation(&mut operation).await?;
        tx.audit(Act::OperationRetried, id, operation.kind.as_str(), now).await?;
        tx.commit().await?;
        self.operation_changed(caller, operation).await
    }

    /// Writes a new operation into the transaction of what asked for it.
    pub(super) async fn begin_operation(
        &self,
        tx: &OrgTx,
        mut operation: Operation,
    ) -> Result<Operation, Error> {
        operation.expected = expected(operation.kind, &tx.durations_of(operation.kind).await?);
        tx.add_operation(&operation).await?;
        Ok(operation)
    }

    /// Tells the watchers of an operation that was committed, and wakes the driver.
    pub(super) async fn operation_changed(
        &self,
        caller: &Caller,
        operation: Operation,
    ) -> Result<OperationView, Error> {
        let view = operation_view(&self.store().org(caller), operation).await?;
        self.publish_operation(caller, &view);
        self.wake();
        Ok(view)
    }

    /// An operation may be due.
    pub(super) fn wake(&self) {
        self.inner.due.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn publish_operation(&self, caller: &Caller, view: &OperationView) {
        let cluster = view.operation.cluster;
        self.feed().publish(caller.org(), cluster, News::Operation(Box::new(view.clone())));
    }

    /// Rings when an operation may be due.
    #[must_use]
    pub fn due(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.due.subscribe()
    }

    /// What waits for a cluster that is here again is looked at now.
    pub(super) async fn hurry(&self, caller: &Caller, cluster: ClusterId) -> Result<(), Error> {
        let tx = self.store().write(caller).await?;
        tx.hurry_operations(cluster, self.now()).await?;
        tx.hurry_placements_in(cluster, self.now()).await?;
        tx.commit().await?;
        self.inner.due.send_modify(|count| *count = count.wrapping_add(1));
        self.placing();
        Ok(())
    }
}

/// What to do about a deletion that was sent; `None` for what can be stopped.
fn no_way_back(kind: OperationKind) -> Option<&'static str> {
    match kind {
        OperationKind::Delete => Some("wait for its end, then undelete the data service"),
        OperationKind::DeleteBackup => Some("make another backup"),
        _ => None,
    }
}

/// All operations on a thing.
pub(super) fn about(subject: &Subject) -> OperationRows {
    OperationRows { subject: Some(subject.id.clone()), ..OperationRows::default() }
}

pub(super) async fn operation_view(store: &OrgStore, operation: Operation) -> Result<OperationView, Error> {
    let views = operation_views(store, vec![operation]).await?;
    views.into_iter().next().ok_or(Error::NotFound("operation"))
}

async fn operation_views(store: &OrgStore, found: Vec<Operation>) -> Result<Vec<OperationView>, Error> {
    let ids: Vec<ClusterId> = found.iter().filter_map(|operation| operation.cluster).collect();
    let clusters = store.clusters_of(&ids).await?;
    let name = |id| clusters.iter().find(|c| Some(c.id) == id).map(|c| c.name.clone());
    let view = |operation: Operation| OperationView { cluster_name: name(operation.cluster), operation };
    Ok(found.into_iter().map(view).collect())
}
