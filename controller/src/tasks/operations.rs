//! Drives operations: many at once, few in one cluster.
//!
//! A run starts the turns that are due and does not wait for them. A cluster that has its share
//! of turns is left out of the next look, so one that answers slowly holds up nobody else.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::Task;
use crate::app::{App, Error};
use crate::domain::{ClusterId, OperationId};
use crate::store::DueOperation;
use crate::supervise::Supervisor;

/// Turns at once.
const ALL: usize = 64;
/// Turns at once in one cluster.
const IN_ONE: usize = 4;

pub(super) struct Operations {
    app: App,
    supervisor: Supervisor,
    working: Arc<Mutex<Working>>,
}

/// What is being driven by this process.
#[derive(Debug, Default)]
struct Working {
    operations: HashSet<OperationId>,
    clusters: HashMap<ClusterId, usize>,
}

impl Working {
    /// Takes an operation on; `false` when there is no room for it.
    fn begin(&mut self, due: &DueOperation) -> bool {
        let room = due.cluster.is_none_or(|c| self.clusters.get(&c).is_none_or(|n| *n < IN_ONE));
        if !room || self.operations.len() >= ALL || !self.operations.insert(due.id) {
            return false;
        }
        if let Some(cluster) = due.cluster {
            *self.clusters.entry(cluster).or_default() += 1;
        }
        true
    }

    fn end(&mut self, due: &DueOperation) {
        self.operations.remove(&due.id);
        let Some(cluster) = due.cluster else { return };
        if let Some(turns) = self.clusters.get_mut(&cluster) {
            *turns = turns.saturating_sub(1);
        }
        self.clusters.retain(|_, turns| *turns > 0);
    }

    fn busy(&self) -> Vec<ClusterId> {
        self.clusters.iter().filter(|(_, turns)| **turns >= IN_ONE).map(|(id, _)| *id).collect()
    }
}

/// A turn under way; gives its place back however it ends.
struct Turn {
    due: DueOperation,
    working: Arc<Mutex<Working>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.working.lock().unwrap_or_else(PoisonError::into_inner).end(&self.due);
    }
}

impl Operations {
    pub(super) fn new(app: App, supervisor: Supervisor) -> Self {
        Self { app, supervisor, working: Arc::default() }
    }

    fn begin(&self, due: DueOperation) -> Option<Turn> {
        let begun = self.working.lock().unwrap_or_else(PoisonError::into_inner).begin(&due);
        begun.then(|| Turn { due, working: self.working.clone() })
    }

    fn busy(&self) -> Vec<ClusterId> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner).busy()
    }
}

#[async_trait]
impl Task for Operations {
    fn name(&self) -> &'static str {
        "operations"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn wake(&self) -> Option<watch::Receiver<u64>> {
        Some(self.app.due())
    }

    async fn activate(&self) -> Result<u64, Error> {
        let mut begun = 0;
        for due in self.app.due_operations(&self.busy(), ALL as u64).await? {
            let Some(turn) = self.begin(due) else { continue };
            let app = self.app.clone();
            self.supervisor.work("operation", async move {
                if let Err(error) = app.drive(turn.due).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(operation = %turn.due.id, error, "a turn failed; it is tried again");
                }
            });
            begun += 1;
        }
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::OrgId;

    fn due(cluster: ClusterId) -> DueOperation {
        DueOperation { org: OrgId::generate(), id: OperationId::generate(), cluster: Some(cluster) }
    }

    #[test]
    fn one_cluster_gets_its_share_and_no_more() {
        let (slow, other) = (ClusterId::generate(), ClusterId::generate());
        let mut working = Working::default();
        let turns: Vec<_> = (0..IN_ONE).map(|_| due(slow)).collect();
        assert!(turns.iter().all(|turn| working.begin(turn)));
        assert!(!working.begin(&turns[0]), "an operation was driven twice at once");
        assert!(!working.begin(&due(slow)));
        assert_eq!(working.busy(), [slow]);
        assert!(working.begin(&due(other)));
        working.end(&turns[0]);
        assert_eq!(working.busy(), []);
        assert!(working.begin(&due(slow)));
    }

    #[test]
    fn all_together_are_bounded() {
        let mut working = Working::default();
        let begun = (0..ALL * 2).filter(|_| working.begin(&due(ClusterId::generate()))).count();
        assert_eq!(begun, ALL);
    }
}
