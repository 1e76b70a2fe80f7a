//! What an instance may ask of the API server: its Lease, the pods of its database, and no more.
use culvert_resources::meta;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::Parent;

/// Most instances of a database, by the schema of its topology.
const MOST: i32 = 5;

/// The ServiceAccount of the pods. The token is mounted by the pod's own wish.
pub(in crate::database) fn account(parent: &Parent<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: parent.owned(parent.names().instance()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Role of the pods.
pub(in crate::database) fn role(parent: &Parent<'_>) -> Role {
    let pods: Vec<String> = (0..MOST).map(|ordinal| parent.names().pod(ordinal)).collect();
    let rules = vec![
        // Hold and renew the Lease of the primary, which the operator has made.
        rule("coordination.k8s.io", "leases", &["get", "update", "patch"], vec![parent.names().lease()]),
        // Say which role the pod has.
        rule("", "pods", &["get", "patch"], pods),
        // Report on the restore that fills this database.
        rule(meta::GROUP, "restores", &["get"], restore(parent)),
        rule(meta::GROUP, "restores/status", &["get", "patch"], restore(parent)),
        // Tell people what happens.
        rule("events.k8s.io", "events", &["create"], Vec::new()),
    ];
    let useful = |rule: &PolicyRule| {
        let restores = rule.resources.iter().flatten().any(|resource| resource.starts_with("restores"));
        !restores || parent.database.spec.source.is_some()
    };
    Role {
        metadata: parent.owned(parent.names().instance()),
        rules: Some(rules.into_iter().filter(useful).collect()),
    }
}

fn restore(parent: &Parent<'_>) -> Vec<String> {
    parent.database.spec.source.iter().map(|source| source.restore.clone()).collect()
}

/// Gives the Role to the ServiceAccount.
pub(in crate::database) fn binding(parent: &Parent<'_>) -> RoleBinding {
    RoleBinding {
        metadata: parent.owned(parent.names().instance()),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: parent.names().instance(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: parent.names().instance(),
            namespace: Some(parent.namespace.to_owned()),
            ..Subject::default()
        }]),
    }
}

fn rule(group: &str, resource: &str, verbs: &[&str], names: Vec<String>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        resource_names: (!names.is_empty()).then_some(names),
        ..PolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{database, parent};
    use super::*;
    use culvert_resources::DataSource;

    #[test]
    fn an_instance_reads_no_secret_and_touches_no_other_database() {
        let database = database(|_| {});
        for rule in role(&parent(&database)).rules.unwrap() {
            let resources = rule.resources.unwrap();
            assert!(!resources.iter().any(|resource| resource == "secrets" || resource.contains("restore")));
            assert!(!rule.verbs.iter().any(|verb| ["*", "delete", "list", "watch"].contains(&verb.as_str())));
            assert!(rule.resource_names.is_some() || resources == ["events"], "{resources:?} without names");
        }
    }

    #[test]
    fn a_database_that_is_filled_reports_on_its_restore() {
        let database = database(|spec| spec.source = Some(DataSource { restore: "back".to_owned() }));
        let rules = role(&parent(&database)).rules.unwrap();
        assert_eq!(
            rules.iter().filter(|rule| rule.resource_names == Some(vec!["back".to_owned()])).count(),
            2
        );
    }
}
