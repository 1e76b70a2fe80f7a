//! The pod of an instance: the runner as first process beside the engine's binaries, without any privilege.
use std::collections::BTreeMap;

use culvert_resources::instance::{
    BIN_DIR, CONFIG_DIR, CREDENTIALS_DIR, POD_NAME_VAR, POD_UID_VAR, RUN_DIR, RUNNER_PORT, TLS_DIR,
    VOLUME_DIR,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use serde::Serialize;

use super::Parent;
use crate::database::VOLUME;

/// Name of the container with the engine.
pub(crate) const ENGINE: &str = "engine";
/// Name of the volume from which an instance is filled, and what the names of its other volumes begin with.
pub(in crate::database) const SOURCE: &str = "source";
/// User and group of every process; the images have no other.
const USER: i64 = 999;

/// Volumes of targets, which the pod sees besides its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(in crate::database) struct Extra {
    pub(in crate::database) volumes: Vec<Volume>,
    pub(in crate::database) mounts: Vec<VolumeMount>,
}

impl Extra {
    /// Without what the instances are filled from: once they are, it may go, and that restarts nothing.
    fn lasting(&self) -> Self {
        let lasts = |name: &str| !name.starts_with(SOURCE);
        Self {
            volumes: self.volumes.iter().filter(|volume| lasts(&volume.name)).cloned().collect(),
            mounts: self.mounts.iter().filter(|mount| lasts(&mount.name)).cloned().collect(),
        }
    }
}

/// All that a template is rendered from. A change of it restarts the instances, so nothing may be in it that a new
/// operator sees otherwise than an old one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::database) struct Inputs<'a> {
    engine: &'a str,
    image: &'a culvert_resources::Image,
    resources: &'a culvert_resources::Resources,
    restarted_at: Option<&'a str>,
    extra: Extra,
}

impl<'a> Inputs<'a> {
    pub(in crate::database) fn new(parent: &Parent<'a>, extra: &Extra) -> Self {
        let spec = &parent.database.spec;
        Self {
            engine: &spec.engine,
            image: &spec.image,
            resources: &spec.resources,
            restarted_at: spec.restarted_at.as_deref(),
            extra: extra.lasting(),
        }
    }
}

/// The template.
pub(in crate::database) fn template(parent: &Parent<'_>, extra: &Extra) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(parent.labels()),
            annotations: Some(BTreeMap::from([(
                "kubectl.kubernetes.io/default-container".to_owned(),
                ENGINE.to_owned(),
            )])),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(parent, extra)),
    }
}

fn spec(parent: &Parent<'_>, extra: &Extra) -> PodSpec {
    let needs = parent.driver.pod();
    let secrets = parent.database.spec.image.pull_secrets.iter();
    let pull: Vec<LocalObjectReference> =
        secrets.map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodSpec {
        service_account_name: Some(parent.names().instance()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(needs.grace_seconds),
        image_pull_secrets: (!pull.is_empty()).then_some(pull),
        security_context: Some(pod_security()),
        affinity: Some(apart(parent)),
        init_containers: Some(vec![installer(parent)]),
        containers: vec![engine(parent, extra)],
        volumes: Some(volumes(parent, extra)),
        ..PodSpec::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        ..SecurityContext::default()
    }
}

/// Instances on nodes of their own, where that is possible.
fn apart(parent: &Parent<'_>) -> Affinity {
    let term = PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from(parent.names().selector())),
            ..LabelSelector::default()
        }),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Copies the runner beside the engine.
fn installer(parent: &Parent<'_>) -> Container {
    Container {
        name: "runner".to_owned(),
        image: Some(parent.database.spec.image.runner.clone()),
        command: Some(vec!["/culvert-runner".to_owned(), "install".to_owned(), BIN_DIR.to_owned()]),
        resources: Some(small()),
        security_context: Some(security()),
        volume_mounts: Some(vec![mount("bin", BIN_DIR, false)]),
        ..Container::default()
    }
}

/// A namespace with a quota refuses a container that says nothing of its size.
fn small() -> ResourceRequirements {
    let of = |cpu: &str, memory: &str| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])
    };
    ResourceRequirements { requests: Some(of("10m", "32Mi")), limits: Some(of("1", "64Mi")), claims: None }
}

fn engine(parent: &Parent<'_>, extra: &Extra) -> Container {
    let spec = &parent.database.spec;
    Container {
        name: ENGINE.to_owned(),
        image: Some(spec.image.engine.clone()),
        command: Some(vec![format!("{BIN_DIR}/culvert-runner"), "run".to_owned()]),
        env: Some(vec![field(POD_NAME_VAR, "metadata.name"), field(POD_UID_VAR, "metadata.uid")]),
        ports: Some(vec![port(ENGINE, parent.engine.port), port("runner", RUNNER_PORT)]),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_owned(), spec.resources.cpu.clone()),
                ("memory".to_owned(), spec.resources.memory.clone()),
            ])),
            limits: Some(BTreeMap::from([("memory".to_owned(), spec.resources.memory.clone())])),
            claims: None,
        }),
        security_context: Some(security()),
        // The runner answers while the engine recovers; half a minute of silence is a hang.
        liveness_probe: Some(probe("/livez", 10, 3)),
        readiness_probe: Some(probe("/readyz", 3, 3)),
        // A runner that cannot go on leaves its reason there.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts(parent, extra)),
        ..Container::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, every: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(RUNNER_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(every),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn mounts(parent: &Parent<'_>, extra: &Extra) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(VOLUME, VOLUME_DIR, false),
        mount("bin", BIN_DIR, true),
        mount("run", RUN_DIR, false),
        mount("tmp", "/tmp", false),
        mount("instance", CONFIG_DIR, true),
        mount("credentials", CREDENTIALS_DIR, true),
        mount("tls", TLS_DIR, true),
    ];
    if parent.driver.pod().shared_memory {
        mounts.push(mount("shared-memory", "/dev/shm", false));
    }
    mounts.extend(extra.mounts.iter().cloned());
    mounts
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

fn volumes(parent: &Parent<'_>, extra: &Extra) -> Vec<Volume> {
    let names = parent.names();
    let instance = ConfigMapVolumeSource { name: names.instance(), ..ConfigMapVolumeSource::default() };
    let mut volumes = vec![
        empty("bin", None, None),
        empty("run", Some("Memory"), Some("16Mi")),
        empty("tmp", None, Some("1Gi")),
        Volume { name: "instance".to_owned(), config_map: Some(instance), ..Volume::default() },
        secret("credentials", names.credentials()),
        secret("tls", names.tls()),
    ];
    if parent.driver.pod().shared_memory {
        // It counts as memory of the pod, whose limit bounds it.
        volumes.push(empty("shared-memory", Some("Memory"), None));
    }
    volumes.extend(extra.volumes.iter().cloned());
    volumes
}

fn empty(name: &str, medium: Option<&str>, limit: Option<&str>) -> Volume {
    let source = EmptyDirVolumeSource {
        medium: medium.map(str::to_owned),
        size_limit: limit.map(|limit| Quantity(limit.to_owned())),
        ..EmptyDirVolumeSource::default()
    };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

fn secret(name: &str, secret: String) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{database, parent};
    use super::*;

    fn rendered(change: impl FnOnce(&mut culvert_resources::DatabaseSpec)) -> PodSpec {
        let database = database(change);
        template(&parent(&database), &Extra::default()).spec.unwrap()
    }

    #[test]
    fn no_container_has_a_privilege_or_a_secret_in_its_environment() {
        let spec = rendered(|_| {});
        assert_eq!(spec.security_context.as_ref().unwrap().run_as_non_root, Some(true));
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.privileged, Some(false));
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
            let from_secret =
                |env: &EnvVar| env.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some());
            assert!(!container.env.iter().flatten().any(from_secret));
            assert!(container.resources.as_ref().unwrap().limits.as_ref().unwrap().contains_key("memory"));
        }
    }

    #[test]
    fn every_mount_has_its_volume() {
        let spec = rendered(|_| {});
        let mut known: Vec<String> = spec.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
        known.push(VOLUME.to_owned());
        for mount in spec.containers[0].volume_mounts.iter().flatten() {
            assert!(known.contains(&mount.name), "{}", mount.name);
        }
    }

    #[test]
    fn parameters_and_topology_do_not_reach_the_template() {
        let inputs = |change: fn(&mut culvert_resources::DatabaseSpec)| {
            let database = database(change);
            serde_json::to_value(Inputs::new(&parent(&database), &Extra::default())).unwrap()
        };
        let usual = inputs(|_| {});
        assert_eq!(usual, inputs(|spec| spec.parameters.clear()));
        assert_eq!(usual, inputs(|spec| spec.topology.replicas = 1));
        assert_ne!(usual, inputs(|spec| spec.image.engine = "other".to_owned()));
        assert_ne!(usual, inputs(|spec| spec.restarted_at = Some("now".to_owned())));
    }
}
