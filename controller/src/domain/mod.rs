//! What the control plane speaks of, as plain values and rules.
//!
//! Nothing here waits, stores, listens or reads a clock: a rule takes `now` and
//! values, and gives a decision. That is what lets every rule be tested at the
//! bottom of its own file, and what keeps the rooms above from growing rules of
//! their own.
//!
//! A value that exists is valid: names, labels, ids and cursors are made by
//! parsing only, and the parser's error says what was wrong with which field.
//!
//! Mistakes a newcomer could make:
//! - passing an id as text or as a bare UUID. Each noun has its own id type, so
//!   the compiler finds a cluster's id where an agent's belongs.
//! - building a [`Caller`] in the middle of things. It is made where somebody was
//!   authenticated, and for the controller's own deeds by [`Caller::controller`].
//! - telling an outsider a cause in free text. Causes live in [`cause`], each with
//!   its explanation and its remedy, so that the agent's log, the console and the
//!   audit say the same thing.

pub mod agent;
pub mod api_token;
pub mod attempt;
pub mod audit;
pub mod backup;
pub mod backup_target;
pub mod caller;
pub mod cause;
pub mod cluster;
pub mod data_service;
pub mod diagnosis;
pub mod difference;
pub mod figures;
pub mod id;
pub mod join_token;
pub mod name;
pub mod observed;
pub mod operation;
pub mod organisation;
pub mod page;
pub mod project;
pub mod quota;
pub mod replica;
pub mod schedule;
pub mod session;
pub mod template;

pub use agent::{Agent, AgentState, Facts, Refused, Version};
pub use api_token::ApiToken;
pub use attempt::{Attempt, Outcome, Stage};
pub use audit::{Act, AuditEvent};
pub use backup::{BackupRef, BackupState, RestoreRef, WorkRef};
pub use backup_target::{BackupTarget, BackupTargetRef};
pub use caller::{Actor, Caller, Credential, CredentialKind};
pub use cause::Cause;
pub use cluster::{Cluster, ClusterRef, ClusterState, Lock};
pub use data_service::{DataService, DataServiceRef, DataServiceState};
pub use diagnosis::{Diagnosis, Light, LightState};
pub use id::{
    AgentId, ApiTokenId, AttemptId, BackupId, BackupScheduleId, BackupTargetId, ClusterId, DataServiceId,
    EventId, JoinTokenId, OperationId, OrgId, ProjectId, RequestId, RestoreId, SessionId, TemplateId, UserId,
};
pub use join_token::{JoinToken, JoinTokenState};
pub use name::{
    ClusterName, Fault, Labels, Name, Namespace, ProjectName, ScheduleName, ServiceName, TargetName,
    TemplateName, WorkName,
};
pub use observed::{ObjectKey, ObjectKind, ObservedObject};
pub use operation::{Failure, Operation, OperationKind, OperationState, Subject, SubjectKind};
pub use organisation::{Organisation, Role, User};
pub use page::{Cursor, Page, PageSize};
pub use project::{Project, ProjectRef};
pub use quota::{Claim, Quota};
pub use replica::{AgentSession, Replica, ReplicaNews};
pub use schedule::BackupScheduleRef;
pub use session::{Session, SignInCode};
pub use template::{Template, TemplateRef};

/// A moment in UTC, to the millisecond: what the store can keep exactly.
pub type Time = time::OffsetDateTime;

/// `moment` as far as the store can keep it.
#[must_use]
pub fn to_millisecond(moment: Time) -> Time {
    let nanosecond = moment.nanosecond() - moment.nanosecond() % 1_000_000;
    moment.to_offset(time::UtcOffset::UTC).replace_nanosecond(nanosecond).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_loses_what_is_below_a_millisecond() {
        let moment = time::macros::datetime!(2026-03-01 10:00:00.123_456_789 +02:00);
        assert_eq!(to_millisecond(moment), time::macros::datetime!(2026-03-01 08:00:00.123 UTC));
    }
}
