//! The local policy: what the owner of the cluster lets through, whatever the control plane says.
//!
//! One file decides, read by the agent alone and never sent anywhere but as one
//! descriptive sentence. Every call is checked against it before anything is
//! dialled, and calls that still run are checked again when it changes.
//!
//! Mistakes a newcomer could make:
//! - To guess. What cannot be read beyond doubt counts as a write to all
//!   namespaces; a `deny` rule matches what *may* touch its subject, an `allow`
//!   rule only what certainly stays inside it.
//! - To accept a misspelt word. An unknown key or verb refuses the file: a rule
//!   that silently never matches is worse than no agent.
//! - To let the file name `system:` users. Kubernetes grants rights to those by
//!   name alone, so they are refused however the file is written.
pub mod request;
mod rules;
pub mod watch;

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use request::{Request, Subject};
use rules::{Pattern, Rule, RuleText};

/// Largest policy file that is read, in bytes; a ConfigMap holds 1 MiB at most.
pub const MAX_FILE: usize = 1024 * 1024;

/// The name under which the cluster's own API server is a target.
pub const KUBERNETES: &str = "kubernetes";

/// Why a policy file is refused.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It is no YAML, or has a key that is not known.
    #[error("the policy file cannot be read as YAML: {0}")]
    Syntax(String),
    /// It is larger than [`MAX_FILE`].
    #[error("the policy file is larger than {MAX_FILE} bytes")]
    TooLarge,
    /// A value means nothing.
    #[error("{field} of the policy file: {problem}")]
    Value {
        /// Where in the file.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The file cannot be opened.
    #[error("the policy file cannot be opened: {0}")]
    Unreadable(#[source] std::io::Error),
}

/// A call that the policy does not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Which kind of no.
    pub kind: DenialKind,
    /// What, which rule, and who can change it, in one sentence.
    pub message: String,
}

/// Kinds of [`Denial`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialKind {
    /// A rule forbids it.
    Denied,
    /// The owner paused all remote access.
    Paused,
    /// The file lists no such target.
    UnknownTarget,
}

/// Address of a TCP target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A policy that is known to be well-formed.
#[derive(Debug, Clone)]
pub struct Policy {
    pause: bool,
    read_only: bool,
    owner: String,
    kubernetes: bool,
    targets: BTreeMap<String, Address>,
    users: Vec<Pattern>,
    groups: Vec<Pattern>,
    allow: Option<Vec<Rule>>,
    deny: Vec<Rule>,
}

impl Default for Policy {
    /// What holds without a file: the API server alone, people under `culvert:`.
    fn default() -> Policy {
        Policy {
            pause: false,
            read_only: false,
            owner: "the owner of the cluster".to_owned(),
            kubernetes: true,
            targets: BTreeMap::new(),
            users: vec![Pattern::prefix("culvert:")],
            groups: vec![Pattern::prefix("culvert:")],
            allow: None,
            deny: Vec::new(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Text {
    pause: bool,
    read_only: bool,
    owner: Option<String>,
    targets: Option<BTreeMap<String, TargetText>>,
    impersonate: Option<ImpersonateText>,
    allow: Option<Vec<RuleText>>,
    deny: Vec<RuleText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct TargetText {
    tcp: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImpersonateText {
    users: Option<Vec<String>>,
    groups: Option<Vec<String>>,
}

impl Policy {
    /// Reads a policy file's text. An empty one is the default policy.
    ///
    /// # Errors
    /// [`PolicyError`] names the first thing that is wrong and where.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        if text.len() > MAX_FILE {
            return Err(PolicyError::TooLarge);
        }
        let only_comments = text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        });
        if only_comments {
            return Ok(Policy::default());
        }
        let text: Text =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        Policy::from_text(text)
    }

    fn from_text(text: Text) -> Result<Policy, PolicyError> {
        let base = Policy::default();
        let (kubernetes, targets) = match text.targets {
            Some(named) => targets(named)?,
            None => (base.kubernetes, base.targets),
        };
        let (users, groups) = match text.impersonate {
            Some(named) => (
                named.users.map_or(Ok(base.users), |names| identities("impersonate.users", &names))?,
                named.groups.map_or(Ok(base.groups), |names| identities("impersonate.groups", &names))?,
            ),
            None => (base.users, base.groups),
        };
        Ok(Policy {
            pause: text.pause,
            read_only: text.read_only,
            owner: text.owner.filter(|owner| !owner.trim().is_empty()).unwrap_or(base.owner),
            kubernetes,
            targets,
            users,
            groups,
            allow: text.allow.map(|texts| rules::compile("allow", texts)).transpose()?,
            deny: rules::compile("deny", text.deny)?,
        })
    }

    /// Whether a request to the API server may pass.
    ///
    /// # Errors
    /// The [`Denial`] that goes back to the caller.
    pub fn check_request(&self, request: &Request) -> Result<(), Denial> {
        self.check_pause()?;
        if !self.kubernetes {
            return Err(self.unknown_target(KUBERNETES));
        }
        if self.read_only && request.writes() {
            return Err(self.denied(&request.phrase(), "`readOnly: true`"));
        }
        if let Some(rule) = self.deny.iter().find(|rule| rule.may_touch(request)) {
            return Err(self.denied(&request.phrase(), &rule.label));
        }
        let Some(allow) = &self.allow else { return Ok(()) };
        // Without its description no client can use the API at all.
        let describes = request.subject == Subject::Discovery && !request.writes();
        if describes || allow.iter().any(|rule| rule.covers(request)) {
            return Ok(());
        }
        Err(self.denied(&request.phrase(), "the list `allow`, of which no rule covers this"))
    }

    /// The address of a TCP target, if it may be dialled.
    ///
    /// # Errors
    /// The [`Denial`] that goes back to the caller.
    pub fn check_target(&self, name: &str) -> Result<&Address, Denial> {
        self.check_pause()?;
        let address = self.targets.get(name).ok_or_else(|| self.unknown_target(name))?;
        if self.read_only {
            return Err(self.denied(&format!("a connection to {name}"), "`readOnly: true`"));
        }
        Ok(address)
    }

    /// Whether the agent may act in this name.
    ///
    /// # Errors
    /// The [`Denial`] that goes back to the caller.
    pub fn check_caller(&self, user: &str, groups: &[String]) -> Result<(), Denial> {
        if user.is_empty() {
            return Err(
                self.denied("a request in nobody's name", "the rule that every request names its user")
            );
        }
        if !permitted(&self.users, user) {
            return Err(self.denied(&format!("acting as user `{user}`"), "`impersonate.users`"));
        }
        match groups.iter().find(|group| !permitted(&self.groups, group)) {
            Some(group) => Err(self.denied(&format!("acting as group `{group}`"), "`impersonate.groups`")),
            None => Ok(()),
        }
    }

    /// Whether the owner paused all remote access.
    pub fn paused(&self) -> bool {
        self.pause
    }

    /// The policy in one sentence for the people on the other end; empty when
    /// nothing is limited beyond the defaults.
    pub fn sentence(&self) -> String {
        if self.pause {
            return format!("remote access is paused by {}", self.owner);
        }
        let mut parts = Vec::new();
        if self.read_only {
            parts.push("read only".to_owned());
        }
        if !self.kubernetes {
            parts.push("no access to the Kubernetes API".to_owned());
        }
        if let Some(allow) = &self.allow {
            parts.push(format!("only what {} allow", counted(allow.len(), "rule")));
        }
        if !self.deny.is_empty() {
            parts.push(format!("without what {} deny", counted(self.deny.len(), "rule")));
        }
        if !self.targets.is_empty() {
            let names: Vec<&str> = self.targets.keys().map(String::as_str).collect();
            parts.push(format!("TCP targets: {}", names.join(", ")));
        }
        parts.join("; ")
    }

    fn check_pause(&self) -> Result<(), Denial> {
        if !self.pause {
            return Ok(());
        }
        let message = format!(
            "remote access to this cluster is paused: `pause: true` in the agent's policy file, which {} can change",
            self.owner
        );
        Err(Denial { kind: DenialKind::Paused, message })
    }

    fn denied(&self, what: &str, rule: &str) -> Denial {
        let message = format!(
            "the cluster's local policy forbids: {what}; by {rule} in the agent's policy file, which {} can change",
            self.owner
        );
        Denial { kind: DenialKind::Denied, message }
    }

    fn unknown_target(&self, name: &str) -> Denial {
        let message = format!(
            "the cluster's local policy lists no target `{name}`; {} can add it under `targets` in the agent's policy file",
            self.owner
        );
        Denial { kind: DenialKind::UnknownTarget, message }
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// `system:` names carry rights of Kubernetes itself and are never taken on.
fn permitted(patterns: &[Pattern], name: &str) -> bool {
    let well_formed = !name.is_empty() && !name.chars().any(char::is_control);
    well_formed && !name.starts_with("system:") && patterns.iter().any(|pattern| pattern.matches(name))
}

fn targets(named: BTreeMap<String, TargetText>) -> Result<(bool, BTreeMap<String, Address>), PolicyError> {
    let mut kubernetes = false;
    let mut addresses = BTreeMap::new();
    for (name, target) in named {
        let field = format!("targets.{name}");
        match (name.as_str(), target.tcp) {
            (KUBERNETES, None) => kubernetes = true,
            (KUBERNETES, Some(_)) => {
                return Err(wrong(
                    &field,
                    "is the cluster's own API server and takes no address: write `{}`",
                ));
            }
            (_, None) => return Err(wrong(&field, "needs `tcp: host:port`")),
            (_, Some(text)) => {
                addresses
                    .insert(name, address(&text).ok_or_else(|| wrong(&field, "needs `tcp: host:port`"))?);
            }
        }
    }
    Ok((kubernetes, addresses))
}

fn address(text: &str) -> Option<Address> {
    let authority: http::uri::Authority = text.parse().ok()?;
    if text.contains('@') || authority.host().is_empty() {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Address { host, port: authority.port_u16().filter(|port| *port != 0)? })
}

fn identities(field: &str, names: &[String]) -> Result<Vec<Pattern>, PolicyError> {
    names
        .iter()
        .map(|name| {
            let pattern = Pattern::parse(name).ok_or_else(|| {
                wrong(field, &format!("`{name}` is neither a name nor a start of one with `*` at its end"))
            })?;
            if pattern.may_match_prefix("system:") {
                return Err(wrong(
                    field,
                    &format!("`{name}` reaches `system:` names, which are never taken on"),
                ));
            }
            Ok(pattern)
        })
        .collect()
}

fn wrong(field: &str, problem: &str) -> PolicyError {
    PolicyError::Value { field: field.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests;
