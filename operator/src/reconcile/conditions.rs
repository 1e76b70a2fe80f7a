//! Conditions, made new in each round; only the time of the last change is kept.
use culvert_resources::{ConditionType, Why};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Longest message; the schema of conditions allows 32768, and nobody reads that.
const MESSAGE: usize = 1024;

/// What a condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It cannot be said.
    Unknown,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Verdict {
    fn from(so: bool) -> Self {
        if so { Self::True } else { Self::False }
    }
}

/// The conditions of one object in one round.
#[derive(Debug, Clone)]
pub(crate) struct Conditions<'a> {
    before: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    made: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// `before` is what stands in the object, `generation` the one that this round looked at.
    pub(crate) fn new(before: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { before, generation, now, made: Vec::new() }
    }

    /// Says something. `reason` is one word of letters, beginning with a capital.
    pub(crate) fn say(
        &mut self,
        kind: ConditionType,
        verdict: impl Into<Verdict>,
        reason: &str,
        message: impl Into<String>,
    ) -> &mut Self {
        let (kind, status) = (kind.as_str(), verdict.into().as_str());
        let before =
            self.before.iter().find(|condition| condition.type_ == kind && condition.status == status);
        let since = before.map_or(Time(self.now), |condition| condition.last_transition_time.clone());
        self.made.retain(|condition| condition.type_ != kind);
        self.made.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shortened(message.into()),
            observed_generation: self.generation,
            last_transition_time: since,
        });
        self
    }

    /// Says that it is not so, for a cause.
    pub(crate) fn not(&mut self, kind: ConditionType, why: &Why) -> &mut Self {
        self.say(kind, Verdict::False, &reason_of(&why.code), format!("{} {}", why.message, why.next))
    }

    /// Whether something was said to be so in this round.
    pub(crate) fn holds(&self, kind: ConditionType) -> bool {
        self.made.iter().any(|condition| condition.type_ == kind.as_str() && condition.status == "True")
    }

    /// Those whose verdict is another than before, or that are new.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &Condition> {
        let before = self.before;
        self.made.iter().filter(move |made| {
            !before.iter().any(|old| old.type_ == made.type_ && old.status == made.status)
        })
    }

    /// All, in the order of their names.
    pub(crate) fn done(mut self) -> Vec<Condition> {
        self.made.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.made
    }
}

/// `image_pull` as a reason: `ImagePull`.
fn reason_of(code: &str) -> String {
    let words = code.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let joined: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        })
        .collect();
    if joined.starts_with(|c: char| c.is_ascii_alphabetic()) { joined } else { "Failed".to_owned() }
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_moves_only_with_the_verdict() {
        let mut first = Conditions::new(&[], Some(1), at(10));
        first.say(ConditionType::Available, true, "Ready", "");
        let before = first.done();
        let mut second = Conditions::new(&before, Some(2), at(20));
        second.say(ConditionType::Available, true, "Other", "another message");
        assert_eq!(second.changed().count(), 0);
        let same = second.done();
        assert_eq!(same[0].last_transition_time.0, at(10));
        assert_eq!((same[0].observed_generation, same[0].reason.as_str()), (Some(2), "Other"));
        let mut third = Conditions::new(&same, Some(2), at(30));
        third.say(ConditionType::Available, Verdict::Unknown, "NoAnswer", "");
        assert_eq!(third.changed().count(), 1);
        assert_eq!(third.done()[0].last_transition_time.0, at(30));
    }

    #[test]
    fn the_last_word_on_a_type_counts() {
        let mut conditions = Conditions::new(&[], None, at(0));
        conditions.say(ConditionType::Accepted, true, "Valid", "").say(
            ConditionType::Accepted,
            false,
            "No",
            "x".repeat(5000),
        );
        assert!(!conditions.holds(ConditionType::Accepted));
        let done = conditions.done();
        assert_eq!(done.len(), 1);
        assert!(done[0].message.chars().count() <= MESSAGE + 1);
    }

    #[test]
    fn a_reason_is_one_word() {
        assert_eq!(reason_of("no_storage_class"), "NoStorageClass");
        assert_eq!(reason_of("9"), "Failed");
        assert_eq!(reason_of(""), "Failed");
    }
}
