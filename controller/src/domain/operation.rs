//! Operations: long work in ordered steps, as a state machine without a clock of its own.
//!
//! An operation is intent that lies in the store: it begins with its steps, and whoever drives
//! it looks for the first step that is not over, does it, and writes down how it went. A
//! passing failure is a message of the step and a time to look again; what ends an operation
//! is its last step, a permanent refusal, a wish to cancel, or the deadline.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ClusterId, OperationId, Time};

/// What an operation does to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Makes a data service.
    Create,
    /// Changes its spec.
    Update,
    /// Restarts its instances one after the other.
    Restart,
    /// Stops it; the volumes stay.
    Stop,
    /// Starts it again.
    Start,
    /// Makes new passwords and certificates.
    RotateCredentials,
    /// Deletes it.
    Delete,
    /// Brings it back on the volumes that were kept.
    Undelete,
    /// Makes a backup.
    Backup,
    /// Deletes a backup.
    DeleteBackup,
    /// Brings a backup back.
    Restore,
}

/// What an operation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What an operation can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// A data service.
    DataService,
    /// A backup.
    Backup,
    /// A restore.
    Restore,
}

/// Where an operation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// No step has begun.
    Pending,
    /// A step is under way.
    Running,
    /// It was asked to stop, and tidies up.
    Cancelling,
    /// All steps are done.
    Succeeded,
    /// It was given up; `failure` says why.
    Failed,
    /// It was stopped on request.
    Cancelled,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Stable name, such as `reserve-quota`.
    pub name: String,
    /// What it does, for people.
    pub title: String,
    /// How far it is.
    pub state: StepState,
    /// When it began.
    pub started_at: Option<Time>,
    /// When it was over.
    pub ended_at: Option<Time>,
    /// What is to say of it: what it waits for, or what it did.
    pub message: String,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Left out, as it is not needed.
    Skipped,
}

/// Why an operation was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable word for programs.
    pub code: String,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do, in one sentence.
    pub next: String,
}

/// How long an operation should take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Nine of ten took longer.
    pub low: u64,
    /// Nine of ten were done by then.
    pub high: u64,
}

/// How far something long is, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Done so far.
    pub done_bytes: u64,
    /// To be done, when it is known.
    pub total_bytes: Option<u64>,
}

/// An operation's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// To what.
    pub subject: Subject,
    /// In which cluster.
    pub cluster: Option<ClusterId>,
    /// Where it is in its life.
    pub state: OperationState,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// What the driver of this kind keeps for itself.
    pub intent: Value,
    /// How long it should take.
    pub expected: Expected,
    /// How far it is, when bytes are moved.
    pub progress: Option<Progress>,
    /// Why it was given up.
    pub failure: Option<Failure>,
    /// Who asked for it.
    pub created_by: String,
    /// When it was asked for.
    pub created_at: Time,
    /// When the first step began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// When it is given up.
    pub deadline: Time,
    /// When to look at it next.
    pub due_at: Time,
    /// Counts who has driven it: a driver that lost its lease writes with an old number, and
    /// is not heard.
    pub epoch: u64,
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Went {
    /// It is done; what it did.
    Done(String),
    /// It is not needed; why.
    Skipped(String),
    /// Not yet: what it waits for. It is looked at again soon.
    Waiting(String),
    /// It can never succeed.
    Refused(Failure),
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Create,
        Self::Update,
        Self::Restart,
        Self::Stop,
        Self::Start,
        Self::RotateCredentials,
        Self::Delete,
        Self::Undelete,
        Self::Backup,
        Self::DeleteBackup,
        Self::Restore,
    ];

    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::RotateCredentials => "rotate_credentials",
            Self::Delete => "delete",
            Self::Undelete => "undelete",
            Self::Backup => "backup",
            Self::DeleteBackup => "delete_backup",
            Self::Restore => "restore",
        }
    }

    /// Name and title of its steps, in order.
    #[must_use]
    pub fn steps(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Create | Self::Undelete => &[
                ("check", "Check the cluster"),
                ("reserve-quota", "Reserve the project's quota"),
                ("send", "Send it to the cluster"),
                ("accepted", "Accepted by the operator"),
                ("provisioned", "Objects made"),
                ("available", "A login and a write succeed"),
            ],
            Self::Update => &[
                ("check", "Check the cluster"),
                ("reserve-quota", "Reserve the project's quota"),
                ("send", "Send it to the cluster"),
                ("accepted", "Accepted by the operator"),
                ("applied", "What runs is what was asked for"),
            ],
            Self::Restart | Self::RotateCredentials | Self::Start => &[
                ("check", "Check the cluster"),
                ("send", "Send it to the cluster"),
                ("accepted", "Accepted by the operator"),
                ("applied", "What runs is what was asked for"),
            ],
            Self::Stop => &[
                ("check", "Check the cluster"),
                ("send", "Send it to the cluster"),
                ("stopped", "No instance runs"),
            ],
            Self::Delete | Self::DeleteBackup => &[
                ("check", "Check the cluster"),
                ("send", "Ask the cluster to delete it"),
                ("gone", "The operator has tidied up"),
            ],
            Self::Backup => &[
                ("check", "Check the cluster"),
                ("target", "The target is at hand"),
                ("send", "Send it to the cluster"),
                ("started", "The backup has begun"),
                ("complete", "It lies in the target, whole"),
                ("verified", "Restored on trial, and queried"),
            ],
            // The middle ones are those of the Restore's own status.
            Self::Restore => &[
                ("check", "Check the cluster"),
                ("target", "The target is at hand"),
                ("send", "Send it to the cluster"),
                ("check-manifest", "Check what lies in the target"),
                ("prior-backup", "Back up what is replaced"),
                ("create-service", "Make the data service"),
                ("fetch", "Fetch the backup"),
                ("recover", "Recover to the moment that was asked for"),
                ("verify", "The data answers"),
                ("record", "Take the data service on"),
            ],
        }
    }

    /// How long it should take while there is no history: measured with images present.
    #[must_use]
    pub fn usually(self) -> Expected {
        let (low, high) = match self {
            Self::Create | Self::Undelete => (15, 120),
            Self::Update | Self::Restart | Self::RotateCredentials => (5, 180),
            Self::Start => (10, 90),
            Self::Stop => (5, 60),
            Self::Delete | Self::DeleteBackup => (5, 120),
            Self::Backup => (10, 300),
            Self::Restore => (30, 600),
        };
        Expected { low, high }
    }

    /// How long it is tried. Longer than a tunnel is down on a bad day; a deletion may have to
    /// wait for a last backup.
    #[must_use]
    pub fn patience(self) -> time::Duration {
        match self {
            Self::Delete => time::Duration::hours(48),
            _ => time::Duration::hours(24),
        }
    }
}

impl FromStr for OperationKind {
    type Err = NoSuchWord;

    fn from_str(text: &str) -> Result<Self, NoSuchWord> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(NoSuchWord)
    }
}

impl SubjectKind {
    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DataService => "data_service",
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

impl FromStr for SubjectKind {
    type Err = NoSuchWord;

    fn from_str(text: &str) -> Result<Self, NoSuchWord> {
        [Self::DataService, Self::Backup, Self::Restore]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(NoSuchWord)
    }
}

/// A word that none of a closed list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of the words that are known here")]
pub struct NoSuchWord;

impl OperationState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Cancelling, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The word on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl FromStr for OperationState {
    type Err = NoSuchWord;

    fn from_str(text: &str) -> Result<Self, NoSuchWord> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(NoSuchWord)
    }
}

impl StepState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }
}

impl Failure {
    /// Why an operation was given up.
    pub fn new(code: impl Into<String>, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), next: next.into() }
    }
}

/// The most characters that a step's message keeps of what a cluster said.
const MESSAGE_MAX: usize = 1000;

impl Operation {
    /// A new operation, due at once.
    #[must_use]
    pub fn new(
        kind: OperationKind,
        subject: Subject,
        cluster: Option<ClusterId>,
        intent: Value,
        created_by: String,
        now: Time,
    ) -> Self {
        let step = |(name, title): &(&str, &str)| Step {
            name: (*name).to_owned(),
            title: (*title).to_owned(),
            state: StepState::Pending,
            started_at: None,
            ended_at: None,
            message: String::new(),
        };
        Self {
            id: OperationId::generate(),
            kind,
            subject,
            cluster,
            state: OperationState::Pending,
            steps: kind.steps().iter().map(step).collect(),
            intent,
            expected: kind.usually(),
            progress: None,
            failure: None,
            created_by,
            created_at: now,
            started_at: None,
            ended_at: None,
            deadline: now + kind.patience(),
            due_at: now,
            epoch: 0,
        }
    }

    /// The first step that is not over.
    #[must_use]
    pub fn current(&self) -> Option<&Step> {
        self.steps.iter().find(|step| !step.state.is_over())
    }

    /// The step of this name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Whether the step of this name is over.
    #[must_use]
    pub fn has_done(&self, name: &str) -> bool {
        self.step(name).is_some_and(|step| step.state == StepState::Done)
    }

    fn current_mut(&mut self) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| !step.state.is_over())
    }

    /// The first step that is not over begins, unless it has.
    pub fn enter(&mut self, now: Time) {
        if self.state == OperationState::Pending {
            self.state = OperationState::Running;
            self.started_at = Some(now);
        }
        if let Some(step) = self.current_mut()
            && step.state != StepState::Running
        {
            step.state = StepState::Running;
            step.started_at = Some(now);
        }
    }

    /// Writes down how the current step went.
    pub fn went(&mut self, went: Went, now: Time) {
        match went {
            Went::Done(message) => self.leave(StepState::Done, &message, now),
            Went::Skipped(message) => self.leave(StepState::Skipped, &message, now),
            Went::Waiting(message) => self.wait(&message, now),
            Went::Refused(failure) => self.fail(failure, now),
        }
    }

    fn leave(&mut self, state: StepState, message: &str, now: Time) {
        if let Some(step) = self.current_mut() {
            step.state = state;
            step.started_at.get_or_insert(now);
            step.ended_at = Some(now);
            step.message = shortened(message);
        }
        self.due_at = now;
        if self.current().is_none() {
            self.end(OperationState::Succeeded, now);
        }
    }

    fn wait(&mut self, message: &str, now: Time) {
        let begun = self.current().and_then(|step| step.started_at).unwrap_or(now);
        self.due_at = now + pause(now - begun);
        if let Some(step) = self.current_mut() {
            step.message = shortened(message);
        }
    }

    /// Marks a step as done that was done when the operation was asked for.
    pub fn done_already(&mut self, name: &str, message: &str, now: Time) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.name == name) {
            step.state = StepState::Done;
            step.started_at = Some(now);
            step.ended_at = Some(now);
            step.message = shortened(message);
        }
    }

    /// Gives it up.
    pub fn fail(&mut self, failure: Failure, now: Time) {
        if let Some(step) = self.current_mut() {
            step.state = StepState::Failed;
            step.started_at.get_or_insert(now);
            step.ended_at = Some(now);
            step.message = shortened(&failure.message);
        }
        self.failure = Some(failure);
        self.end(OperationState::Failed, now);
    }

    /// Gives it up when its deadline has passed; says what it waited for last.
    pub fn expire(&mut self, now: Time) -> bool {
        if now < self.deadline || self.state.is_over() {
            return false;
        }
        let last = self.current().map(|step| step.message.clone()).unwrap_or_default();
        let message = if last.is_empty() {
            "it was not done by its deadline".to_owned()
        } else {
            format!("it was not done by its deadline; it waited for: {last}")
        };
        let next = "mend what it waited for, then retry it";
        self.fail(Failure::new("deadline", message, next), now);
        true
    }

    /// It was asked to stop. `false` when it is over already.
    pub fn ask_to_stop(&mut self, now: Time) -> bool {
        if self.state.is_over() {
            return false;
        }
        self.state = OperationState::Cancelling;
        self.due_at = now;
        true
    }

    /// It is stopped: what was not done is left out.
    pub fn stopped(&mut self, message: &str, now: Time) {
        if let Some(step) = self.current_mut() {
            step.started_at.get_or_insert(now);
            step.ended_at = Some(now);
            step.message = shortened(message);
        }
        for step in self.steps.iter_mut().filter(|step| !step.state.is_over()) {
            step.state = StepState::Skipped;
        }
        self.end(OperationState::Cancelled, now);
    }

    /// It failed, and goes on from the step that failed, with a new deadline. `false` when it
    /// has not failed.
    pub fn go_on(&mut self, now: Time) -> bool {
        if self.state != OperationState::Failed {
            return false;
        }
        if let Some(step) = self.current_mut() {
            // When it first began stays: it tells that something may have been done.
            step.state = StepState::Pending;
            step.ended_at = None;
            step.message.clear();
        }
        self.state = OperationState::Pending;
        self.failure = None;
        self.ended_at = None;
        self.deadline = now + self.kind.patience();
        self.due_at = now;
        true
    }

    fn end(&mut self, state: OperationState, now: Time) {
        self.state = state;
        self.started_at.get_or_insert(now);
        self.ended_at = Some(now);
        self.due_at = now;
    }
}

fn shortened(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect()
}

/// How long to wait before a step that has taken `age` is looked at again.
#[must_use]
pub fn pause(age: time::Duration) -> time::Duration {
    match age.whole_seconds() {
        ..30 => time::Duration::seconds(1),
        30..300 => time::Duration::seconds(3),
        300..3600 => time::Duration::seconds(10),
        _ => time::Duration::seconds(30),
    }
}

/// What to expect of the next, from how many seconds the latest took; the usual while there
/// are fewer than five.
#[must_use]
pub fn expected(kind: OperationKind, took: &[u64]) -> Expected {
    if took.len() < 5 {
        return kind.usually();
    }
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = |tenths: usize| sorted.get((sorted.len() - 1) * tenths / 10).copied().unwrap_or_default();
    Expected { low: at(1), high: at(9).max(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    fn operation() -> Operation {
        let subject = Subject { kind: SubjectKind::DataService, id: "dsv_1".into(), name: "a".into() };
        Operation::new(OperationKind::Stop, subject, None, Value::Null, "ada".into(), at(0))
    }

    fn states(operation: &Operation) -> Vec<&'static str> {
        operation.steps.iter().map(|step| step.state.as_str()).collect()
    }

    #[test]
    fn it_ends_with_its_last_step() {
        let mut operation = operation();
        for second in 1..=3 {
            assert!(!operation.state.is_over());
            operation.enter(at(second));
            operation.went(Went::Done("did it".into()), at(second));
        }
        assert_eq!(operation.state, OperationState::Succeeded);
        assert_eq!((operation.started_at, operation.ended_at), (Some(at(1)), Some(at(3))));
        assert_eq!(states(&operation), ["done", "done", "done"]);
    }

    #[test]
    fn a_passing_failure_ends_nothing_and_the_deadline_tells_of_it() {
        let mut operation = operation();
        operation.enter(at(0));
        operation.went(Went::Waiting("the cluster is disconnected".into()), at(0));
        assert_eq!(operation.state, OperationState::Running);
        assert_eq!(operation.due_at, at(1));
        assert!(!operation.expire(operation.deadline - time::Duration::seconds(1)));
        assert!(operation.expire(operation.deadline));
        let failure = operation.failure.clone().unwrap();
        assert_eq!(failure.code, "deadline");
        assert!(failure.message.contains("the cluster is disconnected"), "{failure:?}");
        assert!(!operation.expire(operation.deadline));
    }

    #[test]
    fn a_retry_goes_on_from_the_step_that_failed() {
        let mut operation = operation();
        operation.enter(at(0));
        operation.went(Went::Done(String::new()), at(0));
        operation.enter(at(1));
        assert!(!operation.go_on(at(1)));
        operation.went(Went::Refused(Failure::new("invalid", "no", "yes")), at(1));
        assert_eq!(states(&operation), ["done", "failed", "pending"]);
        assert!(operation.go_on(at(100)));
        assert_eq!(states(&operation), ["done", "pending", "pending"]);
        assert_eq!(operation.deadline, at(100) + OperationKind::Stop.patience());
        assert_eq!((operation.failure.as_ref(), operation.ended_at), (None, None));
    }

    #[test]
    fn what_is_stopped_is_over() {
        let mut operation = operation();
        operation.enter(at(0));
        assert!(operation.ask_to_stop(at(1)));
        operation.stopped("nothing was sent", at(2));
        assert_eq!(operation.state, OperationState::Cancelled);
        assert_eq!(states(&operation), ["skipped", "skipped", "skipped"]);
        assert!(!operation.ask_to_stop(at(3)));
    }

    #[test]
    fn a_message_from_a_cluster_is_bounded() {
        let mut operation = operation();
        operation.enter(at(0));
        operation.went(Went::Waiting(format!("\u{1b}[31m{}", "x".repeat(5000))), at(0));
        let message = &operation.steps[0].message;
        assert_eq!(message.chars().count(), 1000);
        assert!(!message.contains('\u{1b}'));
    }

    #[test]
    fn what_is_expected_comes_from_what_was() {
        let usual = OperationKind::Create.usually();
        assert_eq!(expected(OperationKind::Create, &[1, 2, 3, 4]), usual);
        let took: Vec<u64> = (1..=11).rev().collect();
        assert_eq!(expected(OperationKind::Create, &took), Expected { low: 2, high: 10 });
    }

    #[test]
    fn words_are_read_back() {
        for kind in OperationKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            let steps: std::collections::BTreeSet<_> = kind.steps().iter().map(|(name, _)| name).collect();
            assert_eq!(steps.len(), kind.steps().len(), "{kind:?} has a step twice");
        }
        for state in OperationState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }

    proptest! {
        #[test]
        fn steps_are_done_in_order_whatever_happens(moves in proptest::collection::vec(0..5_u8, 0..40)) {
            let mut operation = operation();
            for (second, step) in (0..).zip(moves) {
                let now = at(second);
                if operation.state.is_over() {
                    operation.go_on(now);
                    continue;
                }
                operation.enter(now);
                match step {
                    0 => operation.went(Went::Done(String::new()), now),
                    1 => operation.went(Went::Skipped(String::new()), now),
                    2 => operation.went(Went::Waiting("x".into()), now),
                    3 => operation.went(Went::Refused(Failure::new("c", "m", "n")), now),
                    _ => { operation.ask_to_stop(now); operation.stopped("s", now) }
                }
                let over: Vec<bool> = operation.steps.iter().map(|s| s.state.is_over()).collect();
                prop_assert!(!over.windows(2).any(|w| !w[0] && w[1]), "{over:?}");
                prop_assert_eq!(operation.ended_at.is_some(), operation.state.is_over());
            }
        }
    }
}
