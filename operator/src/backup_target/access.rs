//! What the agent may do with the Secret of a target whose credentials are sealed to it: keep this one, and no other.
use culvert_resources::{AgentAccount, BackupTarget, meta};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use crate::reconcile::{Error, Work, owner};

/// Lets the agent at the Secret, when there is something for it to open.
pub(super) async fn give(
    work: &Work,
    target: &BackupTarget,
    agent: Option<&AgentAccount>,
) -> Result<(), Error> {
    let (Some(agent), Some(secret), Some(_)) = (agent, &target.spec.secret, &target.spec.sealed) else {
        return Ok(());
    };
    work.apply(&role(target, &secret.name)).await?;
    work.apply(&binding(target, agent)).await?;
    Ok(())
}

fn metadata(target: &BackupTarget) -> ObjectMeta {
    ObjectMeta {
        name: Some(format!("culvert-credentials-{}", target.name_any())),
        namespace: target.namespace(),
        labels: Some([(meta::TARGET.to_owned(), target.name_any())].into()),
        owner_references: owner(target).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// A Secret that is not there yet is made by a server-side apply, which the API server checks with its name.
fn role(target: &BackupTarget, secret: &str) -> Role {
    let rule = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["secrets".to_owned()]),
        resource_names: Some(vec![secret.to_owned()]),
        verbs: ["get", "create", "patch", "delete"].map(ToOwned::to_owned).to_vec(),
        ..PolicyRule::default()
    };
    Role { metadata: metadata(target), rules: Some(vec![rule]) }
}

fn binding(target: &BackupTarget, agent: &AgentAccount) -> RoleBinding {
    let metadata = metadata(target);
    RoleBinding {
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: agent.service_account.clone(),
            namespace: Some(agent.namespace.clone()),
            ..Subject::default()
        }]),
        metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_gets_one_secret_and_goes_with_its_target() {
        let spec = serde_json::from_value(serde_json::json!({"s3": {"bucket": "b"}})).unwrap();
        let mut target = BackupTarget::new("away", spec);
        target.metadata.uid = Some("1".to_owned());
        let role = role(&target, "keys");
        let rules = role.rules.unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].resource_names, Some(vec!["keys".to_owned()]));
        assert!(!rules[0].verbs.iter().any(|verb| verb == "list" || verb == "watch"));
        let agent = AgentAccount { namespace: "a".to_owned(), service_account: "s".to_owned() };
        let binding = binding(&target, &agent);
        assert_eq!(Some(binding.role_ref.name), role.metadata.name);
        assert_eq!(binding.metadata.owner_references.unwrap()[0].uid, "1");
    }
}
