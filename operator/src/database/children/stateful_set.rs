//! The StatefulSet. Its template is kept as it was rendered, until what it was rendered from changes.
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use super::Parent;
use super::pod::{Extra, Inputs, template};
use crate::database::VOLUME;
use crate::reconcile::{Error, Kept};

/// Annotation on pods: digest of what their template was rendered from.
pub(in crate::database) const TEMPLATE: &str = "data.culvert.dev/template";

/// A StatefulSet, with the digest that its pods shall have.
pub(in crate::database) struct Rendered {
    pub(in crate::database) stateful_set: StatefulSet,
    pub(in crate::database) template: String,
}

/// The StatefulSet with so many replicas and volumes of this size.
pub(in crate::database) fn stateful_set(
    parent: &Parent<'_>,
    live: Option<&StatefulSet>,
    extra: &Extra,
    replicas: i32,
    size: &Quantity,
) -> Result<Rendered, Error> {
    let kept: Kept<PodTemplateSpec> =
        Kept::or_render(live.map(|live| &live.metadata), &Inputs::new(parent, extra), || {
            template(parent, extra)
        })?;
    let mut metadata = parent.owned(parent.names().own());
    metadata.annotations = Some([kept.annotation()?].into());
    let mut template = kept.value;
    let notes = &mut template.metadata.get_or_insert_default().annotations;
    notes.get_or_insert_default().insert(TEMPLATE.to_owned(), kept.inputs.clone());
    let spec = StatefulSetSpec {
        replicas: Some(replicas),
        service_name: Some(parent.names().pods()),
        // Standbys start side by side; who leads is decided by the Lease, not by the order.
        pod_management_policy: Some("Parallel".to_owned()),
        // Pods are restarted by the operator, replicas first.
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("OnDelete".to_owned()),
            rolling_update: None,
        }),
        revision_history_limit: Some(3),
        selector: LabelSelector {
            match_labels: Some(BTreeMap::from(parent.names().selector())),
            ..LabelSelector::default()
        },
        template,
        volume_claim_templates: Some(vec![claim(parent, size)]),
        ..StatefulSetSpec::default()
    };
    let stateful_set = StatefulSet { metadata, spec, status: None };
    Ok(Rendered { stateful_set, template: kept.inputs })
}

fn claim(parent: &Parent<'_>, size: &Quantity) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(VOLUME.to_owned()),
            labels: Some(parent.labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: parent.database.spec.storage.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), size.clone())])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The size in the claims of a StatefulSet; it cannot be changed there.
pub(in crate::database) fn claimed(stateful_set: &StatefulSet) -> Option<&Quantity> {
    let claims = stateful_set.spec.volume_claim_templates.as_ref()?;
    claims.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{database, parent};
    use super::*;

    fn size() -> Quantity {
        Quantity("1Gi".to_owned())
    }

    /// An upgrade of the operator restarts no database.
    #[test]
    fn a_newer_operator_that_renders_otherwise_changes_no_template() {
        let database = database(|_| {});
        let parent = parent(&database);
        let mut older = stateful_set(&parent, None, &Extra::default(), 3, &size()).unwrap().stateful_set;
        // What an older operator would have rendered: another grace time, no probes.
        let mut kept: Kept<PodTemplateSpec> = Kept::of(&older.metadata).unwrap();
        let pod = kept.value.spec.as_mut().unwrap();
        pod.termination_grace_period_seconds = Some(7);
        pod.containers[0].liveness_probe = None;
        older.metadata.annotations = Some([kept.annotation().unwrap()].into());

        let newer = stateful_set(&parent, Some(&older), &Extra::default(), 3, &size()).unwrap();
        let template = newer.stateful_set.spec.template;
        assert_eq!(template.spec, kept.value.spec);
        assert_eq!(template.metadata.unwrap().annotations.unwrap()[TEMPLATE], kept.inputs);
    }

    #[test]
    fn a_change_of_the_spec_renders_anew() {
        let before = database(|_| {});
        let old = stateful_set(&parent(&before), None, &Extra::default(), 3, &size()).unwrap();
        let after = database(|spec| spec.image.engine = "localhost/postgresql:15.21".to_owned());
        let new =
            stateful_set(&parent(&after), Some(&old.stateful_set), &Extra::default(), 3, &size()).unwrap();
        assert_ne!(new.template, old.template);
        let image = new.stateful_set.spec.template.spec.unwrap().containers[0].image.clone();
        assert_eq!(image.as_deref(), Some("localhost/postgresql:15.21"));
    }

    #[test]
    fn a_hand_edited_template_is_not_what_is_kept() {
        let database = database(|_| {});
        let parent = parent(&database);
        let rendered = stateful_set(&parent, None, &Extra::default(), 3, &size()).unwrap().stateful_set;
        let mut edited = rendered.clone();
        edited.spec.template.spec.as_mut().unwrap().containers[0].image = Some("evil".to_owned());
        let again = stateful_set(&parent, Some(&edited), &Extra::default(), 3, &size()).unwrap().stateful_set;
        assert_eq!(again.spec.template, rendered.spec.template);
    }
}
