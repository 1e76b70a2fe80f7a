//! Why an instance does not serve, in words for a person.
use culvert_resources::{WhoCanFix, Why};

use crate::engine::{Data, EngineError};
use crate::lease::claim::Refusal;
use crate::lease::keeper::Standing;

fn why(code: &str, message: impl Into<String>, who: WhoCanFix, next: &str) -> Why {
    Why { code: code.to_owned(), message: message.into(), who, next: next.to_owned(), object: None }
}

/// The API server cannot be asked.
#[must_use]
pub(super) fn api(problem: &str) -> Why {
    why(
        "api_unreachable",
        format!("the Lease of the primary cannot be read or written: {problem}"),
        WhoCanFix::PlatformOperator,
        "see whether the API server answers pods of this namespace, and whether the instance's Role allows Leases",
    )
}

/// The engine did not do what it was asked for.
#[must_use]
pub(super) fn engine(doing: &str, error: &EngineError) -> Why {
    if let EngineError::Stuck(why) = error {
        return (**why).clone();
    }
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    why(
        "engine_failed",
        format!("{doing} failed: {error}{source}"),
        WhoCanFix::Developer,
        "see the log of this pod; it is tried again by itself",
    )
}

/// A probe failed.
#[must_use]
pub(super) fn probe(problem: &str) -> Why {
    why(
        "probe_failed",
        format!("the engine runs but does not serve: {problem}"),
        WhoCanFix::Developer,
        "see the log of this pod; an engine that recovers or starts needs time only",
    )
}

/// The mounted files cannot be read.
#[must_use]
pub(super) fn wish(problem: &str) -> Why {
    why(
        "configuration_unreadable",
        format!("the newest configuration is not in force: {problem}"),
        WhoCanFix::PlatformOperator,
        "see whether the ConfigMap and Secrets of the instance are there; the operator makes them again",
    )
}

/// The engine's process ended by itself.
#[must_use]
pub(super) fn ended(status: &str) -> Why {
    why(
        "engine_ended",
        format!("the engine ended by itself ({status}) and is started again"),
        WhoCanFix::Developer,
        "see the log of this pod for the engine's last words",
    )
}

/// The clock is off.
#[must_use]
pub(super) fn clock(seconds: i64) -> Why {
    let which = if seconds > 0 { "ahead of" } else { "behind" };
    why(
        "clock_skew",
        format!("the clock of this node is {} s {which} the API server's", seconds.abs()),
        WhoCanFix::PlatformOperator,
        "set the clock of the node (NTP); points in time of the archive are off by as much",
    )
}

/// A synchronous standby is missing.
#[must_use]
pub(super) fn standby_missing() -> Why {
    why(
        "standby_missing",
        "commits wait for a standby that is not connected",
        WhoCanFix::Developer,
        "see why the replica does not run; to go on without it, set spec.topology.synchronous to false",
    )
}

/// Nobody is primary, and this instance may not become it. None while that is the usual way.
#[must_use]
pub(super) fn refusal(refusal: Refusal, data: &Data, replicas: i32, standing: &Standing) -> Option<Why> {
    match refusal {
        Refusal::NoData if replicas <= 1 && standing.record.is_some() => Some(lost(data)),
        Refusal::Foreign => Some(why(
            "foreign_data",
            "the data on the volume belongs to another database than the one that was initialised",
            WhoCanFix::Developer,
            "give this instance its own volume back, or restore a backup into a new service",
        )),
        Refusal::NotListed => Some(why(
            "not_synchronous",
            "the primary is gone, and commits did not wait for this standby, so it may lack some of them",
            WhoCanFix::Developer,
            "bring the last primary or its synchronous standby back; else restore a backup into a new service",
        )),
        Refusal::Behind => Some(why(
            "standby_behind",
            "the primary is gone, and this standby lacks too much of its log to take its place",
            WhoCanFix::Developer,
            "bring the last primary back; else restore a backup into a new service",
        )),
        Refusal::Stale => Some(why(
            "primary_gone",
            "the primary is gone, and this instance was primary before it, so its data is not the newest",
            WhoCanFix::Developer,
            "bring the last primary or one of its standbys back; else restore a backup into a new service",
        )),
        _ => None,
    }
}

fn lost(data: &Data) -> Why {
    let found = if *data == Data::Empty { "empty" } else { "not whole" };
    why(
        "volume_lost",
        format!("the volume of the only instance is {found}, although the database was initialised once"),
        WhoCanFix::Developer,
        "give the volume back, or restore a backup into a new service; no data is made a second time",
    )
}
