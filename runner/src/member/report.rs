//! Tells others how this instance is: the status, and the label on the pod.
use culvert_resources::Why;
use culvert_resources::instance::InstanceStatus;

use super::{Doing, Member, why};
use crate::engine::{Data, Role};

/// Seconds by which a clock may be off before that is told.
const SKEW: i64 = 30;

impl Member {
    pub(super) fn report(&self) {
        let status = self.status();
        let label = match &self.role {
            Some(Role::Primary) if self.leading() => Some("primary"),
            Some(Role::Replica(_)) => Some("replica"),
            _ => None,
        };
        self.given.label.send_if_modified(|last| std::mem::replace(last, label) != label);
        let probed = self.found.borrow().well.as_ref().map(|(_, at)| *at);
        let situation = self.process.is_some().then(|| self.situation());
        self.given.board.write(status, probed, situation);
    }

    fn status(&self) -> InstanceStatus {
        let found = self.found.borrow().clone();
        let probed = found.well.map(|(probed, _)| probed).filter(|_| self.process.is_some());
        let problem = self.why(found.problem.or(probed.as_ref().and_then(|probed| probed.problem.clone())));
        let primary = self.role == Some(Role::Primary);
        let well =
            probed.as_ref().is_some_and(|probed| probed.problem.is_none() && probed.primary == primary);
        let probed = probed.unwrap_or_default();
        let known = self.process.is_some() && !probed.version.is_empty();
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        InstanceStatus {
            role: self.role_word().to_owned(),
            doing: self.doing_word().to_owned(),
            version: known.then_some(probed.version),
            healthy: well
                && !self.told
                && self.answers()
                && (!primary || (self.leading() && self.settled.is_some())),
            problem,
            config_digest: self.configured.as_ref().map(|_| self.in_force.config_digest.clone()),
            pending_restart: probed.pending_restart,
            credentials_digest: self.settled.as_ref().map(|_| self.in_force.credentials.digest.clone()),
            lag_bytes: probed.lag_bytes,
            synchronous: self.listed(),
            position: known.then(|| probed.position.to_string()),
            data_identity: match &self.data {
                Some(Data::Whole { identity, .. }) => Some(identity.clone()),
                _ => None,
            },
            data_bytes: probed.data_bytes,
            volume_bytes: self.volume.map(|volume| signed(volume.bytes)),
            free_bytes: self.volume.map(|volume| signed(volume.free)),
            archived_until: probed.archived_until,
            archive_problem: probed.archive_problem,
            certificate_ends: self.in_force.certificate_ends.map(|ends| ends.to_string()),
        }
    }

    fn listed(&self) -> bool {
        let standing = self.given.standing.borrow();
        let follows = matches!(self.role, Some(Role::Replica(_)));
        let list = standing.record.as_ref().and_then(|record| record.synchronous.as_ref());
        follows && list.is_some_and(|list| list.contains(&self.given.pod))
    }

    fn role_word(&self) -> &'static str {
        match &self.role {
            Some(Role::Primary) => "primary",
            Some(Role::Replica(_)) => "replica",
            None => "starting",
        }
    }

    fn doing_word(&self) -> &'static str {
        match (self.task.as_ref().map(|task| &task.doing), &self.role) {
            _ if self.told => "stopping",
            (Some(Doing::Initialise), _) if self.given.wish.borrow().config.source.is_some() => "restoring",
            (Some(Doing::Initialise), _) => "initialising",
            (Some(Doing::Join(_)), _) => "joining",
            (Some(Doing::Promote), _) => "promoting",
            (_, Some(Role::Primary)) => "running",
            (_, Some(Role::Replica(_))) if self.upstream().is_some() => "following",
            (_, Some(Role::Replica(_))) => "waiting for a primary",
            (_, None) => "waiting",
        }
    }

    /// The deepest cause that is known, worst first.
    fn why(&self, engine: Option<String>) -> Option<Why> {
        let standing = self.given.standing.borrow();
        let wish = self.given.wish.borrow();
        if self.read_only
            && let Some(volume) = self.volume
        {
            return Some(volume.why());
        }
        let nobody = self.role.is_none() || self.upstream().is_none();
        let refused = self.claim.err().filter(|_| nobody && !standing.leading && self.primary().is_none());
        let empty = Data::Empty;
        let data = self.data.as_ref().unwrap_or(&empty);
        refused
            .and_then(|refusal| why::refusal(refusal, data, wish.config.replicas, &standing))
            .or_else(|| standing.problem.as_deref().filter(|_| !standing.leading).map(why::api))
            .or_else(|| self.problem.clone())
            .or_else(|| engine.filter(|_| self.process.is_some()).map(|problem| why::probe(&problem)))
            .or_else(|| self.given.wish_problem.borrow().as_deref().map(why::wish))
            .or_else(|| self.standby_missing().then(why::standby_missing))
            .or_else(|| standing.skew_seconds.filter(|off| off.abs() > SKEW).map(why::clock))
    }

    /// Whether commits wait for a standby that is not there.
    fn standby_missing(&self) -> bool {
        let there =
            |name: &String| self.standbys.iter().any(|standby| standby.pod == *name && standby.streaming);
        self.role == Some(Role::Primary) && !self.enforced.0.is_empty() && !self.enforced.0.iter().any(there)
    }
}
