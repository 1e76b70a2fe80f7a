//! What Culvert knows of each database engine: versions, parameters, sizes, and the plan of a change.
//!
//! An engine is data (`data/<engine>/engine.yaml`, compiled in) and the name of a driver. The data says
//! which releases there are, which parameters may be set and what that costs, what sizes are possible
//! and how long a restart takes. Nothing here knows an engine by name: a rule that PostgreSQL needs is
//! a field that any engine may have (`replicasNeedAsMuch`, `sharedBy`). Three rooms read it and must
//! agree: the controller, which shows a plan before anything is applied; the operator, which resolves
//! what is released; and the runner, which asks whether a change needs a restart. Everything is a pure
//! function of its arguments: no clock, no cluster, no file.
//!
//! - [`catalogue()`]: the engines; [`Engine::check`]: every fault of a spec at once, each with its field;
//! - [`Engine::resolve_version`] and [`Engine::resolve_parameters`]: from what a person wrote to what is
//!   released;
//! - [`plan()`]: what a change alters, what it restarts, for how long writes stop, and what is refused;
//! - [`Amount`]: Kubernetes quantities as numbers.
//!
//! Mistakes a newcomer could make:
//! - comparing quantities or parameters as text: `1Gi` is `1024Mi`, and `1GB` is `1048576kB`;
//! - planning only what a person changed: more memory changes the parameters that follow it;
//! - a derived value that the check refuses: a property test holds the two together;
//! - refusing a minor release that the data does not list: images bring new ones sooner than this crate.
//!   Majors must be listed, exact releases need not be.

mod catalogue;
mod check;
mod check_parameters;
mod diff;
mod fault;
mod parameter;
mod plan;
mod quantity;
mod risks;
mod size;
mod unit;
mod version;

pub use catalogue::{
    Catalogue, Downtime, Engine, Limits, Range, Release, ReleaseState, Seconds, Supports, catalogue,
};
pub use check::{LONGEST_NAME, check_name};
pub use fault::Fault;
pub use parameter::{Apply, Kind, Parameter, Sized, Source};
pub use plan::{Change, Effect, Plan, Seen, plan};
pub use quantity::{Amount, NotAQuantity, words};
pub use unit::Units;
pub use version::Version;

#[cfg(test)]
pub(crate) mod tests {
    use crate::{Plan, Seen, catalogue, plan};
    use culvert_resources::DataServiceSpec;

    /// The smallest spec of an engine.
    pub(crate) fn spec(engine: &str, version: &str) -> DataServiceSpec {
        DataServiceSpec {
            engine: engine.to_owned(),
            version: version.to_owned(),
            ..DataServiceSpec::default()
        }
    }

    /// A running service of so many instances.
    pub(crate) fn seen(replicas: i32) -> Seen {
        Seen {
            running_version: Some("17.9".to_owned()),
            available_versions: ["15.20", "17.9"].map(str::to_owned).into(),
            can_expand: Some(true),
            replicas,
        }
    }

    /// The plan of a change to the smallest PostgreSQL.
    pub(crate) fn changed(seen: &Seen, change: impl Fn(&mut DataServiceSpec)) -> Plan {
        let current = spec("postgresql", "17");
        let mut desired = current.clone();
        change(&mut desired);
        plan(catalogue().engine("postgresql").unwrap(), Some(&current), &desired, seen)
    }

    /// A change of one parameter.
    pub(crate) fn set(name: &'static str, value: &'static str) -> impl Fn(&mut DataServiceSpec) {
        move |spec| {
            spec.parameters.insert(name.to_owned(), value.to_owned());
        }
    }
}
