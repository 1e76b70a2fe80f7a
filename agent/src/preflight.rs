//! Checks everything the agent needs, one after the other, and changes nothing.
//!
//! For the person who installs: each line says what was tried, how it went, and
//! what to mend. A check that depends on one that failed is left out, not
//! reported as failed too.
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::causes::{Cause, chain};
use crate::config::{SecretName, Settings, StatePlace};
use crate::forward::kube_config;
use crate::identity::read_token;
use crate::link::Way;
use crate::policy;

/// Difference between this clock and the API server's that is worth a warning.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// The agent works, and less well.
    Warning,
    /// The agent will not work.
    Failed,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do; empty when nothing is.
    pub next: String,
}

impl Check {
    fn passed(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.to_owned(), outcome: Outcome::Passed, detail: detail.into(), next: String::new() }
    }

    fn failed(name: &str, detail: impl Into<String>, next: &str) -> Check {
        Check {
            name: name.to_owned(),
            outcome: Outcome::Failed,
            detail: detail.into(),
            next: next.to_owned(),
        }
    }

    fn warning(name: &str, detail: impl Into<String>, next: &str) -> Check {
        Check { outcome: Outcome::Warning, ..Check::failed(name, detail, next) }
    }
}

/// Runs every check.
pub async fn run(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![policy_file(settings.policy.as_deref()).await];
    checks.extend(state_folder(&settings.state));
    checks.extend(controller(settings).await);
    match kube_config(settings.kubeconfig.as_deref()).await {
        Err(error) => {
            checks.push(Check::failed("API server", chain(&error), "run in a pod, or name a kubeconfig"))
        }
        Ok(config) => match Client::try_from(config) {
            Err(error) => checks.push(Check::failed("API server", chain(&error), "mend the kubeconfig")),
            Ok(client) => checks.extend(cluster(&client, &settings.state).await),
        },
    }
    checks
}

/// The checks as a table for a terminal.
pub fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let word = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Warning => "warning",
            Outcome::Failed => "FAILED",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}  {word:7}  {}", check.name, check.detail);
        if !check.next.is_empty() {
            let _ = writeln!(text, "{:width$}           -> {}", "", check.next);
        }
    }
    text
}

/// Whether the agent would work.
pub fn passed(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.outcome != Outcome::Failed)
}

async fn policy_file(path: Option<&Path>) -> Check {
    let Some(path) = path else { return Check::passed("policy", "no file: the API server and nothing else") };
    match policy::watch::load(path).await {
        Err(error) => Check::failed("policy", error.to_string(), "mend the file"),
        Ok(policy) if policy.paused() => {
            Check::warning("policy", policy.sentence(), "set `pause: false` to let calls in")
        }
        Ok(policy) => {
            let sentence = policy.sentence();
            Check::passed("policy", if sentence.is_empty() { "allows all".to_owned() } else { sentence })
        }
    }
}

fn state_folder(place: &StatePlace) -> Option<Check> {
    let StatePlace::Folder(path) = place else { return None };
    let next = "give the agent a folder that it may write to";
    Some(match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            Check::failed("state", format!("{} is no folder", path.display()), next)
        }
        Ok(found) if found.permissions().readonly() => {
            Check::failed("state", format!("{} is read-only", path.display()), next)
        }
        Ok(_) => Check::passed("state", path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::passed("state", format!("{} will be made", path.display()))
        }
        Err(error) => Check::failed("state", format!("{}: {error}", path.display()), next),
    })
}

/// Token, name, way, and the controller's key.
async fn controller(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    let token = match settings.token_file.as_deref().map(read_token) {
        None => {
            checks.push(Check::warning(
                "join token",
                "none given: the controller's key is not checked",
                "name the token's file with --token-file unless the agent is enrolled",
            ));
            None
        }
        Some(Err(error)) => {
            let cause = Cause::from(&error);
            checks.push(Check::failed("join token", cause.why, &cause.next));
            None
        }
        Some(Ok(token)) => {
            checks.push(Check::passed("join token", format!("id {}", token.id())));
            Some(token)
        }
    };
    let target = settings.proxy.as_ref().map_or(&settings.controller, |proxy| &proxy.address);
    let resolved = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    match resolved.map(|mut addresses| addresses.next()) {
        Ok(Some(address)) => {
            checks.push(Check::passed("name", format!("{} is {}", target.host, address.ip())))
        }
        Ok(None) => {
            checks.push(Check::failed("name", format!("{} has no address", target.host), "check the name"));
            return checks;
        }
        Err(error) => {
            checks.push(Check::failed(
                "name",
                format!("{}: {error}", target.host),
                "check the name and the DNS server",
            ));
            return checks;
        }
    }
    let Some(token) = token else { return checks };
    let way = match Way::new(settings) {
        Ok(way) => way,
        Err(cause) => {
            checks.push(Check::failed("way", cause.why, &cause.next));
            return checks;
        }
    };
    checks.push(match way.probe(&token).await {
        Ok(()) => Check::passed(
            "controller",
            format!("{} answers with the key that the token pins ({})", settings.controller, way.route()),
        ),
        Err(cause) => Check::failed("controller", format!("{}: {}", cause.what, cause.why), &cause.next),
    });
    checks
}

async fn cluster(client: &Client, state: &StatePlace) -> Vec<Check> {
    let version = match client.apiserver_version().await {
        Ok(version) => version.git_version,
        Err(error) => {
            return vec![Check::failed(
                "API server",
                chain(&error),
                "check address and credentials; in a pod, the service account",
            )];
        }
    };
    let mut checks = vec![Check::passed("API server", format!("Kubernetes {version}"))];
    checks.push(clock(client).await);
    for needed in rights(state) {
        checks.push(needed.check(client).await);
    }
    if let StatePlace::Secret(name) = state {
        checks.push(state_secret(client, name).await);
    }
    checks
}

/// The API server's clock is the only other one at hand before enrolment.
async fn clock(client: &Client) -> Check {
    let request = match http::Request::get("/version").body(kube::client::Body::empty()) {
        Ok(request) => request,
        Err(error) => return Check::warning("clock", error.to_string(), ""),
    };
    let here = SystemTime::now();
    let there = client.send(request).await.ok().and_then(|response| {
        let text = response.headers().get(http::header::DATE)?.to_str().ok()?.to_owned();
        OffsetDateTime::parse(&text, &Rfc2822).ok()
    });
    let Some(there) = there else {
        return Check::warning(
            "clock",
            "the API server does not tell the time",
            "make sure the clock is set by NTP",
        );
    };
    let there = SystemTime::from(there);
    let skew = here.duration_since(there).or_else(|_| there.duration_since(here)).unwrap_or_default();
    if skew > CLOCK_TOLERANCE {
        let detail = format!("{} s off the API server's", skew.as_secs());
        Check::warning("clock", detail, "set the clock by NTP: certificates depend on it")
    } else {
        Check::passed("clock", "agrees with the API server's")
    }
}

async fn state_secret(client: &Client, name: &SecretName) -> Check {
    match Api::<Secret>::namespaced(client.clone(), &name.namespace).get_opt(&name.name).await {
        Ok(Some(_)) => Check::passed("state", format!("Secret {name} is there")),
        Ok(None) => {
            let create = Right {
                verb: "create",
                group: "",
                resource: "secrets",
                subresource: "",
                namespace: name.namespace.clone(),
                name: String::new(),
                needed: true,
            };
            match create.check(client).await.outcome {
                Outcome::Passed => Check::passed("state", format!("Secret {name} will be made")),
                _ => Check::failed(
                    "state",
                    format!("Secret {name} is missing, and the agent may not make it"),
                    "let the chart make it, empty",
                ),
            }
        }
        Err(error) => Check::failed(
            "state",
            format!("Secret {name}: {}", chain(&error)),
            "let the agent get this Secret",
        ),
    }
}

/// A right on the API server.
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    namespace: String,
    name: String,
    /// Without it the agent does not work at all.
    needed: bool,
}

fn rights(state: &StatePlace) -> Vec<Right> {
    let right = |verb, group, resource, subresource, name: &str, needed| Right {
        verb,
        group,
        resource,
        subresource,
        namespace: String::new(),
        name: name.to_owned(),
        needed,
    };
    let mut rights = vec![
        right("impersonate", "", "users", "", "culvert:controller", true),
        right("impersonate", "", "groups", "", "culvert:admins", true),
        right("impersonate", "", "groups", "", "culvert:readers", true),
        right("impersonate", "", "groups", "", "culvert:controllers", true),
        right("impersonate", "authentication.k8s.io", "userextras", "culvert.dev/org", "", true),
        right("impersonate", "authentication.k8s.io", "userextras", "culvert.dev/request-id", "", true),
        right("list", "", "nodes", "", "", false),
        right("list", "storage.k8s.io", "storageclasses", "", "", false),
        right("get", "", "namespaces", "", "kube-system", false),
    ];
    if let StatePlace::Secret(secret) = state {
        rights.extend(["get", "update"].map(|verb| Right {
            namespace: secret.namespace.clone(),
            ..right(verb, "", "secrets", "", &secret.name, true)
        }));
    }
    rights
}

impl Right {
    async fn check(self, client: &Client) -> Check {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: text(self.verb),
                    group: text(self.group),
                    resource: text(self.resource),
                    subresource: text(self.subresource),
                    namespace: text(&self.namespace),
                    name: text(&self.name),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let sub = if self.subresource.is_empty() { String::new() } else { format!("/{}", self.subresource) };
        let name = format!("may {} {}{sub} {}", self.verb, self.resource, self.name);
        let name = name.trim_end();
        let next = "apply the chart's ClusterRole and its binding to the agent's service account";
        match Api::<SelfSubjectAccessReview>::all(client.clone())
            .create(&PostParams::default(), &review)
            .await
        {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
                Check::passed(name, "yes")
            }
            Ok(_) if self.needed => Check::failed(name, "no", next),
            Ok(_) => Check::warning(name, "no: the controller will not see this fact", next),
            Err(error) => Check::warning(name, chain(&error), next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_mend() {
        let checks = [
            Check::passed("policy", "allows all"),
            Check::warning("clock", "40 s off the API server's", "set the clock"),
            Check::failed("name", "cp.example.org: no such host", "check the name"),
        ];
        let expected = "\
policy  ok       allows all
clock   warning  40 s off the API server's
                 -> set the clock
name    FAILED   cp.example.org: no such host
                 -> check the name
";
        assert_eq!(table(&checks), expected);
        assert!(!passed(&checks));
        assert!(passed(&checks[..2]));
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let date = OffsetDateTime::parse("Mon, 23 Nov 2026 19:14:02 GMT", &Rfc2822).unwrap();
        assert_eq!(date.unix_timestamp(), 1_795_461_242);
    }

    #[tokio::test]
    async fn a_broken_policy_fails_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "paws: true").unwrap();
        assert_eq!(policy_file(Some(&path)).await.outcome, Outcome::Failed);
        assert_eq!(policy_file(None).await.outcome, Outcome::Passed);
        assert_eq!(state_folder(&StatePlace::Folder(path)).unwrap().outcome, Outcome::Failed);
    }
}
