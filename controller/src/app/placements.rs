//! Bringing backup targets to the clusters that use them, and taking them away again.
//!
//! Each placement is looked at when it is due: when its target changed, when its cluster came
//! back, when the cluster's agent has another key, and now and then. What a cluster was sent is
//! kept, so a look that finds nothing new asks nobody anything.

use culvert_pki::hpke::SealingKey;
use culvert_resources::{BackupTarget as Resource, SealedCredentials, SecretRef, meta};
use data_encoding::{BASE64, HEXLOWER};
use futures::StreamExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::backup_targets::stamp;
use super::drive::data_services::make_namespace;
use super::in_cluster::Trouble;
use super::{App, Error};
use crate::domain::backup_target::{Placement, Sent};
use crate::domain::{BackupTarget, BackupTargetRef, Caller, OrgId, Time};

/// Placements looked at in one go, and how many at once.
const GO: u64 = 64;
const AT_ONCE: usize = 8;
/// When a placement that is as it should be is looked at again.
const CALM: time::Duration = time::Duration::hours(1);
/// When one whose cluster cannot be asked is looked at again; its return makes it due at once.
const AWAY: time::Duration = time::Duration::minutes(5);
/// When one that failed, or that waits, is looked at again.
const SOON: time::Duration = time::Duration::seconds(10);
const WAITING: time::Duration = time::Duration::seconds(2);

/// How a look at a placement ended.
enum Placed {
    /// It is as it should be; what the cluster was sent.
    Calm(Sent),
    /// It was sent, and lacks something that only the cluster's owner can give.
    Lacking(Sent, String),
    /// The cluster has to do something first.
    Waiting,
    /// The target is gone from there.
    Gone,
}

impl App {
    /// Looks at the placements that are due; gives how many there were.
    pub async fn place_targets(&self) -> Result<u64, Error> {
        let due = self.store().due_placements(self.now(), GO).await?;
        let looks = due.into_iter().map(|(org, placement)| self.look_at(org, placement));
        let mut looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        let mut count = 0;
        while let Some(looked) = looks.next().await {
            looked?;
            count += 1;
        }
        Ok(count)
    }

    async fn look_at(&self, org: OrgId, mut placement: Placement) -> Result<(), Error> {
        let caller = Caller::controller(org);
        let which = BackupTargetRef::Id(placement.target);
        let Some(target) = self.store().org(&caller).backup_target(&which).await? else { return Ok(()) };
        let was_due = placement.due_at;
        let never_sent = placement.sent.is_none() && placement.trouble.is_empty();
        let placed = match target.deleted_at {
            Some(_) if never_sent => Ok(Placed::Gone),
            Some(_) => self.take_away(&caller, &target, &placement).await,
            None => {
                if never_sent {
                    self.note_attempt(&caller, &mut placement).await?;
                }
                self.bring(&caller, &target, &placement).await
            }
        };
        let now = self.now();
        let tx = self.store().write(&caller).await?;
        match placed {
            Ok(Placed::Gone) => {
                tx.forget_placement(&placement).await?;
                tx.forget_backup_target(target.id).await?;
            }
            Ok(placed) => {
                settle(&mut placement, placed, now);
                tx.put_placement(&placement, was_due).await?;
            }
            Err(trouble) => {
                postpone(&mut placement, &trouble, now);
                tx.put_placement(&placement, was_due).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// From now on the cluster may have the target, whatever becomes of this process.
    async fn note_attempt(&self, caller: &Caller, placement: &mut Placement) -> Result<(), Error> {
        placement.trouble = "it is being sent".to_owned();
        let tx = self.store().write(caller).await?;
        tx.put_placement(placement, placement.due_at).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Sends a target to a cluster, unless it has what it should have.
    async fn bring(
        &self,
        caller: &Caller,
        target: &BackupTarget,
        placement: &Placement,
    ) -> Result<Placed, Trouble> {
        let key = self.sealing_key(caller, placement).await?;
        let wanted =
            Sent { revision: target.revision, key: key.as_ref().map(SealingKey::id).unwrap_or_default() };
        let lacking =
            "the cluster's agent opens no sealed credentials: upgrade it, with dataServices.enabled";
        if placement.sent.as_ref() == Some(&wanted) {
            return Ok(match key {
                Some(_) => Placed::Calm(wanted),
                None => Placed::Lacking(wanted, lacking.to_owned()),
            });
        }
        let client = self.in_cluster(caller.org(), placement.cluster).await?;
        let (namespace, name) = (placement.namespace.as_str(), target.name.as_str());
        let targets: Api<Resource> = Api::namespaced(client.clone(), namespace);
        if let Some(known) = targets.get_opt(name).await?
            && record_of(&known) != Some(target.id.to_string().as_str())
        {
            let said =
                format!("there is a BackupTarget {namespace}/{name} in the cluster that was not made here");
            return Err(Trouble::Passing(said));
        }
        make_namespace(&client, namespace).await?;
        let sealed = match &key {
            Some(key) => Some(self.seal_for(caller, target, placement, key).await?),
            None => None,
        };
        let params = PatchParams::apply(meta::manager::CONTROLLER).force();
        targets.patch(name, &params, &Patch::Apply(manifest(target, placement, sealed))).await?;
        Ok(match key {
            Some(_) => Placed::Calm(wanted),
            None => Placed::Lacking(wanted, lacking.to_owned()),
        })
    }

    /// The key of the agent that speaks for the placement's cluster.
    async fn sealing_key(
        &self,
        caller: &Caller,
        placement: &Placement,
    ) -> Result<Option<SealingKey>, Trouble> {
        let agent = self.store().org(caller).agent_of(placement.cluster).await?;
        let told = agent.and_then(|agent| agent.facts).map(|facts| facts.sealing_key).unwrap_or_default();
        let bytes = HEXLOWER.decode(told.as_bytes()).unwrap_or_default();
        Ok(SealingKey::from_bytes(&bytes).ok())
    }

    async fn seal_for(
        &self,
        caller: &Caller,
        target: &BackupTarget,
        placement: &Placement,
        key: &SealingKey,
    ) -> Result<SealedCredentials, Trouble> {
        let credentials = self.open_credentials(caller, target.id).await?;
        let generation = i64::try_from(target.credential_generation).unwrap_or(i64::MAX);
        let (namespace, name) = (placement.namespace.as_str(), target.name.as_str());
        let place = SealedCredentials::place(namespace, name, &target.secret(), generation);
        let sealed = key
            .seal(place.as_bytes(), credentials.to_text().as_bytes())
            .map_err(|error| Trouble::Passing(error.to_string()))?;
        Ok(SealedCredentials { generation, key_id: key.id(), ciphertext: BASE64.encode(&sealed) })
    }

    /// Deletes a target in a cluster, and looks whether it is gone. The agent wipes its Secret.
    async fn take_away(
        &self,
        caller: &Caller,
        target: &BackupTarget,
        placement: &Placement,
    ) -> Result<Placed, Trouble> {
        let client = self.in_cluster(caller.org(), placement.cluster).await?;
        let targets: Api<Resource> = Api::namespaced(client, placement.namespace.as_str());
        let known = targets.get_opt(target.name.as_str()).await;
        let known = match known {
            // Nor is the kind: its owner took the operator out of the cluster.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            other => other?,
        };
        let Some(known) = known.filter(|known| record_of(known) == Some(target.id.to_string().as_str()))
        else {
            return Ok(Placed::Gone);
        };
        if known.metadata.deletion_timestamp.is_none() {
            let only = Preconditions { uid: known.metadata.uid, resource_version: None };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            match targets.delete(target.name.as_str(), &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(Placed::Waiting)
    }
}

fn settle(placement: &mut Placement, placed: Placed, now: Time) {
    match placed {
        Placed::Calm(sent) => {
            placement.sent = Some(sent);
            placement.trouble = String::new();
            placement.due_at = now + CALM;
        }
        Placed::Lacking(sent, trouble) => {
            placement.sent = Some(sent);
            placement.trouble = trouble;
            placement.due_at = now + CALM;
        }
        Placed::Waiting => placement.due_at = now + WAITING,
        Placed::Gone => {}
    }
}

fn postpone(placement: &mut Placement, trouble: &Trouble, now: Time) {
    placement.trouble = trouble.to_string();
    placement.due_at = now + if matches!(trouble, Trouble::Away(_)) { AWAY } else { SOON };
}

fn record_of(target: &Resource) -> Option<&str> {
    target.metadata.labels.as_ref()?.get(meta::RECORD).map(String::as_str)
}

/// The object as the control plane wants it in a namespace.
fn manifest(target: &BackupTarget, placement: &Placement, sealed: Option<SealedCredentials>) -> Value {
    let mut spec = target.spec.clone();
    spec.secret = Some(SecretRef { name: target.secret() });
    spec.sealed = sealed;
    let mut annotations = json!({meta::REVISION: target.revision.to_string()});
    if let (Some(asked), Value::Object(annotations)) = (target.check_asked_at, &mut annotations) {
        annotations.insert(meta::RUN_NOW.to_owned(), stamp(asked).into());
    }
    json!({
        "apiVersion": format!("{}/{}", meta::GROUP, meta::VERSION),
        "kind": "BackupTarget",
        "metadata": {
            "name": target.name,
            "namespace": placement.namespace,
            "labels": {meta::RECORD: target.id.to_string(), meta::MANAGED_BY: "culvert"},
            "annotations": annotations,
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BackupTargetId, ClusterId};

    fn placement() -> Placement {
        Placement {
            target: BackupTargetId::generate(),
            cluster: ClusterId::generate(),
            namespace: "data-default".parse().unwrap(),
            sent: None,
            trouble: "before".to_owned(),
            due_at: Time::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_failed_is_tried_again_sooner_than_what_is_away() {
        let mut failed = placement();
        postpone(&mut failed, &Trouble::Passing("no".to_owned()), Time::UNIX_EPOCH);
        let mut away = placement();
        postpone(&mut away, &Trouble::Away("disconnected".to_owned()), Time::UNIX_EPOCH);
        assert!(failed.due_at < away.due_at);
        assert_eq!((failed.trouble.as_str(), away.trouble.as_str()), ("no", "disconnected"));
        let sent = Sent { revision: 1, key: String::new() };
        settle(&mut failed, Placed::Calm(sent.clone()), Time::UNIX_EPOCH);
        assert_eq!((failed.trouble.as_str(), failed.sent), ("", Some(sent)));
    }

    #[test]
    fn an_object_names_its_record_and_its_secret() {
        let target = BackupTarget {
            id: BackupTargetId::generate(),
            name: "s3".parse().unwrap(),
            spec: serde_json::from_value(json!({"s3": {"bucket": "b"}})).unwrap(),
            revision: 7,
            credential_generation: 1,
            check_asked_at: None,
            created_at: Time::UNIX_EPOCH,
            deleted_at: None,
        };
        let object = manifest(&target, &placement(), None);
        assert_eq!(object["metadata"]["labels"][meta::RECORD], target.id.to_string());
        assert_eq!(object["spec"]["secret"]["name"], "backup-target-s3");
        assert_eq!(object["spec"].get("sealed"), None);
        let read: Resource = serde_json::from_value(object).unwrap();
        assert_eq!(record_of(&read), Some(target.id.to_string().as_str()));
    }
}
