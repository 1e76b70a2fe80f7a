//! The ServiceAccount of Jobs in a namespace, with the least that they need.
//!
//! A Job reports on the object that it works for, and a scheduled one makes its Backup. It reads no Secret through
//! the API (they are mounted), no DataService, and nothing of another namespace. Rights to one object by its name are
//! not possible: the account is shared by all Jobs of the namespace, and a Backup's name is not known beforehand.
use std::collections::BTreeMap;

use culvert_resources::meta;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ObjectMeta;

/// Name of the ServiceAccount, Role and RoleBinding.
pub(crate) const NAME: &str = "culvert-job";

/// The ServiceAccount.
pub(crate) fn account(namespace: &str) -> ServiceAccount {
    // The token is asked for by each pod; nothing else that uses the account gets one unasked.
    ServiceAccount {
        metadata: metadata(namespace),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Role.
pub(crate) fn role(namespace: &str) -> Role {
    let rules = vec![
        rule(meta::GROUP, &["backups"], &["get", "create"]),
        rule(meta::GROUP, &["backups/status"], &["get", "patch"]),
        rule(meta::GROUP, &["backuptargets/status", "restores/status"], &["patch"]),
        rule("events.k8s.io", &["events"], &["create"]),
    ];
    Role { metadata: metadata(namespace), rules: Some(rules) }
}

/// The RoleBinding.
pub(crate) fn binding(namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: metadata(namespace),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: NAME.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: NAME.to_owned(),
            namespace: Some(namespace.to_owned()),
            ..Subject::default()
        }]),
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn metadata(namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(meta::MANAGED_BY.to_owned(), "culvert".to_owned())])),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_reads_no_secret_and_deletes_nothing() {
        for rule in role("shop").rules.unwrap() {
            let resources = rule.resources.unwrap();
            assert!(!resources.iter().any(|resource| resource == "secrets" || resource.contains('*')));
            assert!(
                !rule.verbs.iter().any(|verb| ["delete", "*", "list", "update"].contains(&verb.as_str()))
            );
        }
    }
}
