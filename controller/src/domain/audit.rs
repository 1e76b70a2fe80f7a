//! The audit: what was done, by whom, to what. Written in the transaction of the
//! change it tells of, with a number of its organisation's own sequence.

use super::{EventId, Time};

/// Deeds that are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// The organisation and its first user were made.
    OrganisationCreated,
    /// A one-time code was made.
    SignInCodeCreated,
    /// Somebody signed in.
    SignedIn,
    /// Somebody signed out.
    SignedOut,
    /// A cluster was made.
    ClusterCreated,
    /// A cluster was deleted, its agents with it.
    ClusterDeleted,
    /// A cluster was locked.
    ClusterLocked,
    /// A cluster was unlocked.
    ClusterUnlocked,
    /// A join token was made.
    JoinTokenCreated,
    /// A join token was deleted.
    JoinTokenRevoked,
    /// An agent enrolled.
    AgentEnrolled,
    /// An agent was replaced by a later one.
    AgentRevoked,
    /// An agent got a fresh certificate.
    AgentRenewed,
    /// An agent returned after its certificate had expired.
    AgentRejoined,
    /// An agent's key was found in two places.
    AgentLocked,
    /// An API token was made.
    ApiTokenCreated,
    /// An API token was deleted.
    ApiTokenRevoked,
    /// A person got a certificate for the gateway.
    CertificateIssued,
    /// A project was made.
    ProjectCreated,
    /// A project's name or quota was changed.
    ProjectChanged,
    /// A project was deleted.
    ProjectDeleted,
    /// A template was made.
    TemplateCreated,
    /// A template was changed.
    TemplateChanged,
    /// A template was deleted.
    TemplateDeleted,
    /// A backup target was made.
    BackupTargetCreated,
    /// A backup target was changed.
    BackupTargetChanged,
    /// A backup target was given other credentials.
    BackupTargetCredentialsChanged,
    /// A backup target was asked to be checked.
    BackupTargetChecked,
    /// A backup target was asked to be deleted.
    BackupTargetDeleted,
    /// A backup schedule was made.
    BackupScheduleCreated,
    /// A backup schedule was changed.
    BackupScheduleChanged,
    /// A backup schedule was asked for a backup now.
    BackupScheduleRun,
    /// A backup schedule was deleted.
    BackupScheduleDeleted,
    /// A backup was asked for.
    BackupCreated,
    /// A backup was asked to be deleted.
    BackupDeleted,
    /// A restore was asked for.
    RestoreCreated,
    /// A data service was asked for.
    DataServiceCreated,
    /// A data service's spec was changed.
    DataServiceChanged,
    /// A data service was asked to be deleted.
    DataServiceDeleted,
    /// A deleted data service was asked back.
    DataServiceUndeleted,
    /// What lives in the cluster was taken as what is wanted.
    DataServiceAdopted,
    /// An operation was asked to stop.
    OperationCancelled,
    /// A failed operation was asked to go on.
    OperationRetried,
    /// An operation ended well.
    OperationSucceeded,
    /// An operation ended badly.
    OperationFailed,
}

impl Act {
    /// The word in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrganisationCreated => "organisation.created",
            Self::SignInCodeCreated => "sign_in_code.created",
            Self::SignedIn => "session.created",
            Self::SignedOut => "session.ended",
            Self::ClusterCreated => "cluster.created",
            Self::ClusterDeleted => "cluster.deleted",
            Self::ClusterLocked => "cluster.locked",
            Self::ClusterUnlocked => "cluster.unlocked",
            Self::JoinTokenCreated => "join_token.created",
            Self::JoinTokenRevoked => "join_token.revoked",
            Self::AgentEnrolled => "agent.enrolled",
            Self::AgentRevoked => "agent.revoked",
            Self::AgentRenewed => "agent.renewed",
            Self::AgentRejoined => "agent.rejoined",
            Self::AgentLocked => "agent.locked",
            Self::ApiTokenCreated => "api_token.created",
            Self::ApiTokenRevoked => "api_token.revoked",
            Self::CertificateIssued => "certificate.issued",
            Self::ProjectCreated => "project.created",
            Self::ProjectChanged => "project.changed",
            Self::ProjectDeleted => "project.deleted",
            Self::TemplateCreated => "template.created",
            Self::TemplateChanged => "template.changed",
            Self::TemplateDeleted => "template.deleted",
            Self::BackupTargetCreated => "backup_target.created",
            Self::BackupTargetChanged => "backup_target.changed",
            Self::BackupTargetCredentialsChanged => "backup_target.credentials_changed",
            Self::BackupTargetChecked => "backup_target.checked",
            Self::BackupTargetDeleted => "backup_target.deleted",
            Self::BackupScheduleCreated => "backup_schedule.created",
            Self::BackupScheduleChanged => "backup_schedule.changed",
            Self::BackupScheduleRun => "backup_schedule.run",
            Self::BackupScheduleDeleted => "backup_schedule.deleted",
            Self::BackupCreated => "backup.created",
            Self::BackupDeleted => "backup.deleted",
            Self::RestoreCreated => "restore.created",
            Self::DataServiceCreated => "data_service.created",
            Self::DataServiceChanged => "data_service.changed",
            Self::DataServiceDeleted => "data_service.deleted",
            Self::DataServiceUndeleted => "data_service.undeleted",
            Self::DataServiceAdopted => "data_service.adopted",
            Self::OperationCancelled => "operation.cancelled",
            Self::OperationRetried => "operation.retried",
            Self::OperationSucceeded => "operation.succeeded",
            Self::OperationFailed => "operation.failed",
        }
    }
}

/// A line of the audit, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its number in its organisation, from 1, without gaps.
    pub sequence: u64,
    /// Its id.
    pub id: EventId,
    /// When.
    pub at: Time,
    /// Kind, id and name of who did it.
    pub actor: (String, String, String),
    /// What was done.
    pub act: String,
    /// The id of what it was done to.
    pub target: String,
    /// More, for people.
    pub detail: String,
}
