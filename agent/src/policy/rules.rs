//! One rule of the policy: verbs, resources and namespaces, and when it matches.
use serde::Deserialize;

use super::request::{Request, Scope, Subject};
use super::{PolicyError, wrong};

/// Verbs of Kubernetes that a rule may name.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    name: Option<String>,
    verbs: Option<Vec<String>>,
    resources: Option<Vec<String>>,
    namespaces: Option<Vec<String>>,
}

/// A name, or the start of one, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Pattern {
    pub(super) fn prefix(start: &str) -> Pattern {
        Pattern::Prefix(start.to_owned())
    }

    /// `None` for an empty text or a `*` anywhere but at the end.
    pub(super) fn parse(text: &str) -> Option<Pattern> {
        match text.strip_suffix('*') {
            Some(start) if !start.contains('*') => Some(Pattern::Prefix(start.to_owned())),
            None if !text.is_empty() && !text.contains('*') => Some(Pattern::Exact(text.to_owned())),
            _ => None,
        }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact == name,
            Pattern::Prefix(start) => name.starts_with(start),
        }
    }

    /// Whether some name with this beginning matches.
    pub(super) fn may_match_prefix(&self, beginning: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact.starts_with(beginning),
            // A lone `*` is no attempt at `system:`; those are taken out anyway.
            Pattern::Prefix(start) => {
                start.starts_with(beginning) || (!start.is_empty() && beginning.starts_with(start.as_str()))
            }
        }
    }

    fn any(&self) -> bool {
        matches!(self, Pattern::Prefix(start) if start.is_empty())
    }
}

/// `pods`, `deployments.apps`, `pods/exec`, `pods/*` or `*`.
#[derive(Debug, Clone)]
struct ResourcePattern {
    /// `None` is any resource.
    resource: Option<String>,
    /// `None` is any group.
    group: Option<String>,
    sub: Sub,
}

#[derive(Debug, Clone)]
enum Sub {
    Unsaid,
    Any,
    Named(String),
}

impl ResourcePattern {
    fn parse(text: &str) -> Option<ResourcePattern> {
        let (main, sub) = match text.split_once('/') {
            Some((main, "*")) => (main, Sub::Any),
            Some((main, sub)) if word(sub) => (main, Sub::Named(sub.to_owned())),
            Some(_) => return None,
            None => (text, Sub::Unsaid),
        };
        if main == "*" {
            return Some(ResourcePattern { resource: None, group: None, sub });
        }
        let (resource, group) = match main.split_once('.') {
            Some((resource, group)) if group.split('.').all(word) => (resource, Some(group.to_owned())),
            Some(_) => return None,
            None => (main, None),
        };
        word(resource).then(|| ResourcePattern { resource: Some(resource.to_owned()), group, sub })
    }

    fn matches_main(&self, group: &str, resource: &str) -> bool {
        self.resource.as_deref().is_none_or(|wanted| wanted == resource)
            && self.group.as_deref().is_none_or(|wanted| wanted == group)
    }

    /// For `deny`: `pods` means `pods/exec` as well.
    fn may_touch(&self, group: &str, resource: &str, sub: &str) -> bool {
        self.matches_main(group, resource)
            && match &self.sub {
                Sub::Unsaid => true,
                Sub::Any => !sub.is_empty(),
                Sub::Named(named) => named == sub,
            }
    }

    /// For `allow`: `pods` means `pods` alone, as in Kubernetes' own roles; `*` is everything.
    fn covers(&self, group: &str, resource: &str, sub: &str) -> bool {
        self.matches_main(group, resource)
            && match &self.sub {
                Sub::Unsaid => sub.is_empty() || self.resource.is_none(),
                Sub::Any => !sub.is_empty(),
                Sub::Named(named) => named == sub,
            }
    }
}

fn word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A rule that is known to be well-formed. `None` is "any".
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// How messages call it.
    pub(super) label: String,
    verbs: Option<Vec<String>>,
    resources: Option<Vec<ResourcePattern>>,
    namespaces: Option<Vec<Pattern>>,
}

/// Checks and compiles a list of rules; `list` is its name in the file.
pub(super) fn compile(list: &str, texts: Vec<RuleText>) -> Result<Vec<Rule>, PolicyError> {
    texts.into_iter().enumerate().map(|(index, text)| compile_one(list, index, text)).collect()
}

fn compile_one(list: &str, index: usize, text: RuleText) -> Result<Rule, PolicyError> {
    let field = format!("{list}[{index}]");
    let verbs = text.verbs.map(|verbs| compile_verbs(&field, verbs)).transpose()?.flatten();
    let resources = text
        .resources
        .map(|names| each(&format!("{field}.resources"), &names, ResourcePattern::parse))
        .transpose()?;
    let namespaces = text
        .namespaces
        .map(|names| each(&format!("{field}.namespaces"), &names, Pattern::parse))
        .transpose()?;
    let label = match text.name {
        Some(name) => format!("the `{list}` rule \"{name}\""),
        None => format!("`{list}` rule {}", index + 1),
    };
    // `*` says no more than leaving the list out.
    let namespaces = namespaces.filter(|patterns| !patterns.iter().any(Pattern::any));
    Ok(Rule { label, verbs, resources, namespaces })
}

fn compile_verbs(field: &str, verbs: Vec<String>) -> Result<Option<Vec<String>>, PolicyError> {
    let field = format!("{field}.verbs");
    if verbs.is_empty() {
        return Err(wrong(&field, "is empty: leave it out to mean every verb"));
    }
    if verbs.iter().any(|verb| verb == "*") {
        return Ok(None);
    }
    match verbs.iter().find(|verb| !VERBS.contains(&verb.as_str())) {
        Some(verb) => Err(wrong(&field, &format!("`{verb}` is no verb; there are {}", VERBS.join(", ")))),
        None => Ok(Some(verbs)),
    }
}

fn each<T>(field: &str, names: &[String], parse: fn(&str) -> Option<T>) -> Result<Vec<T>, PolicyError> {
    if names.is_empty() {
        return Err(wrong(field, "is empty: leave it out to mean all"));
    }
    names
        .iter()
        .map(|name| parse(name).ok_or_else(|| wrong(field, &format!("`{name}` is not understood"))))
        .collect()
}

impl Rule {
    /// For `deny`: whether the request may touch what the rule names.
    pub(super) fn may_touch(&self, request: &Request) -> bool {
        let verb = self.verbs.as_ref().is_none_or(|verbs| {
            // A path that is no resource has HTTP methods for verbs: any rule may mean it.
            matches!(request.subject, Subject::Other) || verbs.contains(&request.verb)
        });
        let resource = self.resources.as_ref().is_none_or(|patterns| match &request.subject {
            Subject::Other => true,
            Subject::Discovery => false,
            Subject::Resource { group, resource, subresource, .. } => {
                patterns.iter().any(|pattern| pattern.may_touch(group, resource, subresource))
            }
        });
        let namespace = self.namespaces.as_ref().is_none_or(|patterns| match &request.scope {
            Scope::Namespace(name) => patterns.iter().any(|pattern| pattern.matches(name)),
            Scope::Cluster => false,
            Scope::All => true,
        });
        verb && resource && namespace
    }

    /// For `allow`: whether the request certainly stays within what the rule names.
    pub(super) fn covers(&self, request: &Request) -> bool {
        let verb = self.verbs.as_ref().is_none_or(|verbs| verbs.contains(&request.verb));
        let resource = self.resources.as_ref().is_none_or(|patterns| match &request.subject {
            Subject::Other | Subject::Discovery => false,
            Subject::Resource { group, resource, subresource, .. } => {
                patterns.iter().any(|pattern| pattern.covers(group, resource, subresource))
            }
        });
        let namespace = self.namespaces.as_ref().is_none_or(|patterns| match &request.scope {
            Scope::Namespace(name) => patterns.iter().any(|pattern| pattern.matches(name)),
            Scope::Cluster | Scope::All => false,
        });
        verb && resource && namespace
    }
}
