//! Applies the objects of a database.
use std::collections::BTreeMap;

use culvert_resources::DataSource;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service};
use kube::api::{DeleteParams, Patch};
use kube::{Api, ResourceExt as _};
use time::OffsetDateTime;

use super::certificates::{self, Certificates, Held};
use super::children::config::{self, FILE};
use super::children::pod::Extra;
use super::children::{Parent, access, budget, network, secrets, services, stateful_set};
use super::credentials::Credentials;
use super::order;
use super::seen::Seen;
use super::volumes;
use crate::reconcile::{Error, Work};

/// Annotation on the ConfigMap: when its text changed last, RFC 3339.
const CHANGED_AT: &str = "data.culvert.dev/changed-at";

/// What was made in a round, as far as the next steps and the report depend on it.
pub(super) struct Made {
    /// Digest that the template of every pod shall have.
    pub(super) template: String,
    /// Digest of the file that every instance shall have in force.
    pub(super) config: String,
    /// When that file changed last.
    pub(super) config_changed: Option<String>,
    /// Digest of the passwords that every instance shall have in force.
    pub(super) passwords: String,
    /// When the server's certificate ends, RFC 3339.
    pub(super) certificate_ends: Option<String>,
    /// Whether volumes shall grow and their class does not let them.
    pub(super) cannot_grow: Option<String>,
    /// Whether what it begins with is not there yet.
    pub(super) waits_for_source: bool,
}

/// Makes everything exist as it shall.
pub(super) async fn make(work: &Work, parent: &Parent<'_>, seen: &Seen) -> Result<Made, Error> {
    let (credentials, certificates) = secret_things(work, parent, seen).await?;
    let (elsewhere, extra) = seen.targets.reached(parent);
    let volume_bytes = volumes::wanted(&parent.database.spec.storage, &seen.claims, &seen.fills());
    let text = config::text(parent, elsewhere, volume_bytes)?;
    let digest = config::digest(&text);
    let config_changed = configure(work, parent, seen, text).await?;
    surroundings(work, parent).await?;
    let cannot_grow = grow(work, parent, seen, volume_bytes).await?;
    let waits_for_source = !seen.targets.complete(parent) && seen.stateful_set.is_none();
    let template = if waits_for_source {
        String::new()
    } else {
        instances(work, parent, seen, &extra, volume_bytes, cannot_grow.is_some()).await?
    };
    Ok(Made {
        template,
        config: digest,
        config_changed,
        passwords: credentials.digest(),
        certificate_ends: certificates.server.annotations.get(certificates::ENDS).cloned(),
        cannot_grow,
        waits_for_source,
    })
}

async fn secret_things(
    work: &Work,
    parent: &Parent<'_>,
    seen: &Seen,
) -> Result<(Credentials, Certificates), Error> {
    let asked = parent.database.spec.credentials_rotated_at.as_deref();
    let credentials = Credentials::settle(seen.credentials.as_ref(), asked)?;
    let held = Held { authority: seen.authority.as_ref(), server: seen.server.as_ref() };
    let now = OffsetDateTime::from_unix_timestamp(seen.now.as_second()).map_err(Error::making)?;
    let certificates = certificates::settle(parent.names(), &held, asked, now)?;
    for secret in secrets::secrets(parent, &credentials, &certificates) {
        work.apply(&secret).await?;
    }
    if seen.stateful_set.is_some() {
        if !credentials.made.is_empty() {
            let note = format!("new passwords were made: {}", credentials.made.join(", "));
            work.tell(parent.database, "CredentialsMade", &note).await;
        }
        if certificates.issued {
            work.tell(parent.database, "CertificateIssued", "a new certificate of the server was made").await;
        }
    }
    Ok((credentials, certificates))
}

/// Writes `instance.json`, and says when its text changed last.
async fn configure(
    work: &Work,
    parent: &Parent<'_>,
    seen: &Seen,
    text: String,
) -> Result<Option<String>, Error> {
    let held = seen.config.as_ref();
    let same = held.and_then(|map| map.data.as_ref()?.get(FILE)) == Some(&text);
    let before = held.and_then(|map| map.annotations().get(CHANGED_AT).cloned());
    let changed = before.filter(|_| same).unwrap_or_else(|| seen.now.to_string());
    let mut map: ConfigMap = config::map(parent, text);
    map.metadata.annotations = Some(BTreeMap::from([(CHANGED_AT.to_owned(), changed.clone())]));
    work.apply(&map).await?;
    Ok(Some(changed))
}

/// What stands around the instances.
async fn surroundings(work: &Work, parent: &Parent<'_>) -> Result<(), Error> {
    work.apply(&access::account(parent)).await?;
    work.apply(&access::role(parent)).await?;
    work.apply(&access::binding(parent)).await?;
    work.apply(&services::headless(parent)).await?;
    work.apply(&services::primary(parent)).await?;
    match services::replicas(parent) {
        Some(service) => drop(work.apply(&service).await?),
        None => remove_replicas_service(work, parent).await?,
    }
    work.apply(&network::policy(parent, work.world().namespace())).await?;
    work.apply(&budget::budget(parent)).await?;
    // Without a spec: who holds it is the runners' affair.
    work.apply(&Lease { metadata: parent.lasting(parent.names().lease()), spec: None }).await?;
    Ok(())
}

async fn remove_replicas_service(work: &Work, parent: &Parent<'_>) -> Result<(), Error> {
    match work.find::<Service>(parent.namespace, &parent.names().replicas()).await? {
        // Never one that somebody else made under this name.
        Some(service) if ours(&service, parent) => work.delete(&service, DeleteParams::default()).await,
        _ => Ok(()),
    }
}

fn ours(object: &Service, parent: &Parent<'_>) -> bool {
    let uid = parent.database.uid().unwrap_or_default();
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

/// Lets claims grow; the name of their class when it does not let them.
async fn grow(work: &Work, parent: &Parent<'_>, seen: &Seen, bytes: i64) -> Result<Option<String>, Error> {
    let small: Vec<&PersistentVolumeClaim> =
        seen.claims.iter().filter(|claim| volumes::asked(claim).is_some_and(|asked| asked < bytes)).collect();
    let Some(first) = small.first() else { return Ok(None) };
    let class = first.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
    if !expandable(work, &class).await? {
        return Ok(Some(class));
    }
    let size = volumes::quantity(&parent.database.spec.storage, bytes);
    for claim in small {
        let patch = serde_json::json!({ "spec": { "resources": { "requests": { "storage": size } } } });
        let claims: Api<PersistentVolumeClaim> = work.api(parent.namespace);
        let name = claim.name_any();
        let patched = claims.patch(&name, &work.patching(), &Patch::Merge(&patch)).await;
        patched.map_err(|error| Error::kube(format!("growing the claim {name}"), error))?;
        work.tell(parent.database, "VolumeGrows", &format!("the volume of {name} grows to {}", size.0)).await;
    }
    Ok(None)
}

async fn expandable(work: &Work, class: &str) -> Result<bool, Error> {
    use k8s_openapi::api::storage::v1::StorageClass;
    let classes = Api::<StorageClass>::all(work.world().client());
    let found = classes.get_opt(class).await;
    let found = found.map_err(|error| Error::kube(format!("reading the storage class {class}"), error))?;
    Ok(found.and_then(|class| class.allow_volume_expansion).unwrap_or(false))
}

/// The StatefulSet; the digest that its pods shall have.
async fn instances(
    work: &Work,
    parent: &Parent<'_>,
    seen: &Seen,
    extra: &Extra,
    bytes: i64,
    cannot_grow: bool,
) -> Result<String, Error> {
    let spec = &parent.database.spec;
    let wanted = if spec.stopped { 0 } else { spec.topology.replicas };
    let live = seen.stateful_set.as_ref();
    let now = live.and_then(|live| live.spec.replicas).unwrap_or(0);
    let leads = seen.primary().and_then(|pod| parent.names().ordinal(pod));
    let replicas = order::replicas(wanted, now, leads);
    let size = volumes::quantity(&spec.storage, bytes);
    // New volumes of a class that does not let the old ones grow are as large as those.
    let claimed = live.and_then(stateful_set::claimed).cloned();
    let size = if cannot_grow { claimed.clone().unwrap_or(size) } else { size };
    let rendered = stateful_set::stateful_set(parent, live, extra, replicas, &size)?;
    match live {
        // The claims in it cannot be changed: it is made anew around the pods, which go on.
        Some(live) if claimed.as_ref().is_some_and(|claimed| *claimed != size) => {
            work.delete(live, DeleteParams::orphan()).await?;
        }
        Some(live) if live.metadata.deletion_timestamp.is_some() => {}
        _ => drop(work.apply::<StatefulSet>(&rendered.stateful_set).await?),
    }
    Ok(rendered.template)
}

/// Whether a source is named; for the report.
pub(super) fn source<'a>(parent: &Parent<'a>) -> Option<&'a DataSource> {
    parent.database.spec.source.as_ref()
}
