//! Job, CronJob and ConfigMap as values.
use std::collections::BTreeMap;

use culvert_resources::instance::BIN_DIR;
use culvert_resources::job::{EXIT_PERMANENT, JOB_DIR, JOB_NAME, JobConfig};
use culvert_resources::meta;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec,
    ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::access;
use super::reach::mounted;

/// Name of the container that works.
pub(crate) const CONTAINER: &str = "runner";
/// Memory of a Job. A stream through compression, encryption and upload needs less than 128 MiB; the rest is for the
/// engine's own program, which runs in the same container.
const MEMORY: &str = "256Mi";
/// User and group of our images; engines' images are run as it too.
const USER: i64 = 999;
/// Seconds in which a Job that is told to stop may abort its upload.
const GRACE_SECONDS: i64 = 30;

/// Which program works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// The runner's own image.
    Runner(String),
    /// An engine's image, with the runner copied in.
    Engine {
        /// With the engine's binaries.
        engine: String,
        /// With the runner.
        runner: String,
    },
}

/// A Job to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    /// Name of the Job and of its ConfigMap.
    pub(crate) name: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Labels besides the usual ones.
    pub(crate) labels: BTreeMap<String, String>,
    /// What dies with what; nothing for a Job that a finalizer waits for.
    pub(crate) owner: Option<OwnerReference>,
    /// What it does.
    pub(crate) config: JobConfig,
    /// With what.
    pub(crate) program: Program,
    /// Pull Secrets.
    pub(crate) pull_secrets: Vec<String>,
    /// What it sees.
    pub(crate) volumes: Vec<Volume>,
    /// Where it sees it.
    pub(crate) mounts: Vec<VolumeMount>,
    /// Seconds after which it is ended.
    pub(crate) deadline_seconds: i64,
    /// Attempts.
    pub(crate) attempts: i64,
    /// Seconds for which it stays after its end.
    pub(crate) stay_seconds: i32,
}

impl Task {
    /// The Job.
    pub(crate) fn job(&self) -> Job {
        Job {
            metadata: self.metadata(self.owner.clone()),
            spec: Some(self.job_spec(&self.name)),
            status: None,
        }
    }

    /// The spec of the Job, with the name of the ConfigMap that it reads.
    pub(crate) fn job_spec(&self, config_map: &str) -> JobSpec {
        JobSpec {
            active_deadline_seconds: Some(self.deadline_seconds),
            backoff_limit: i32::try_from(self.attempts.saturating_sub(1).max(0)).ok(),
            ttl_seconds_after_finished: Some(self.stay_seconds),
            pod_failure_policy: Some(failure_policy()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(self.all_labels()), ..ObjectMeta::default() }),
                spec: Some(self.pod(config_map)),
            },
            ..JobSpec::default()
        }
    }

    /// The file that it reads, owned by what reads it.
    ///
    /// # Errors
    /// Never for a value of ours: serialising can only fail for maps with keys that are no text.
    pub(crate) fn config_map(&self, reader: Option<OwnerReference>) -> Result<ConfigMap, serde_json::Error> {
        let file = serde_json::to_string_pretty(&self.config)?;
        Ok(ConfigMap {
            metadata: self.metadata(reader),
            data: Some(BTreeMap::from([("job.json".to_owned(), file)])),
            ..ConfigMap::default()
        })
    }

    /// Labels of the Job and of its pods.
    pub(crate) fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert(meta::MANAGED_BY.to_owned(), "culvert".to_owned());
        labels.insert("app.kubernetes.io/component".to_owned(), "job".to_owned());
        labels
    }

    fn metadata(&self, owner: Option<OwnerReference>) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.all_labels()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    fn pod(&self, config_map: &str) -> PodSpec {
        let mut volumes = vec![config_volume(config_map), scratch("tmp")];
        let mut mounts = vec![mounted("job", JOB_DIR, true), mounted("tmp", "/tmp", false)];
        if matches!(self.program, Program::Engine { .. }) {
            volumes.push(scratch("bin"));
            mounts.push(mounted("bin", BIN_DIR, true));
        }
        volumes.extend(self.volumes.iter().cloned());
        mounts.extend(self.mounts.iter().cloned());
        PodSpec {
            service_account_name: Some(access::NAME.to_owned()),
            automount_service_account_token: Some(true),
            restart_policy: Some("Never".to_owned()),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(pod_security()),
            image_pull_secrets: pull_secrets(&self.pull_secrets),
            init_containers: self.installing().map(|container| vec![container]),
            containers: vec![self.working(mounts)],
            volumes: Some(volumes),
            ..PodSpec::default()
        }
    }

    /// The container that works.
    fn working(&self, mounts: Vec<VolumeMount>) -> Container {
        let (image, command) = match &self.program {
            Program::Runner(image) => (image, None),
            Program::Engine { engine, .. } => (engine, Some(vec![format!("{BIN_DIR}/culvert-runner")])),
        };
        Container {
            name: CONTAINER.to_owned(),
            image: Some(image.clone()),
            command,
            args: Some(vec!["job".to_owned()]),
            env: Some(vec![
                from_field(JOB_NAME, "metadata.labels['batch.kubernetes.io/job-name']"),
                from_field("POD_NAME", "metadata.name"),
            ]),
            volume_mounts: Some(mounts),
            // A runner that dies without a word leaves the end of its log.
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            resources: Some(resources(MEMORY)),
            security_context: Some(container_security()),
            ..Container::default()
        }
    }

    /// The container that copies the runner beside the engine.
    fn installing(&self) -> Option<Container> {
        let Program::Engine { runner, .. } = &self.program else { return None };
        Some(Container {
            name: "install".to_owned(),
            image: Some(runner.clone()),
            args: Some(vec!["install".to_owned(), BIN_DIR.to_owned()]),
            volume_mounts: Some(vec![mounted("bin", BIN_DIR, false)]),
            resources: Some(resources("64Mi")),
            security_context: Some(container_security()),
            ..Container::default()
        })
    }
}

/// A pod that was in the way of a drain is no attempt; a failure that cannot be mended ends the Job.
fn failure_policy() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: Some("True".to_owned()),
    };
    let permanent = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(CONTAINER.to_owned()),
        operator: "In".to_owned(),
        values: vec![EXIT_PERMANENT],
    };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![disrupted]),
            },
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(permanent),
                on_pod_conditions: None,
            },
        ],
    }
}

fn config_volume(config_map: &str) -> Volume {
    let source = ConfigMapVolumeSource { name: config_map.to_owned(), ..ConfigMapVolumeSource::default() };
    Volume { name: "job".to_owned(), config_map: Some(source), ..Volume::default() }
}

/// An empty folder that goes with the pod; bounded, so that it cannot fill the node's disk.
fn scratch(name: &str) -> Volume {
    let source = EmptyDirVolumeSource {
        size_limit: Some(Quantity("256Mi".to_owned())),
        ..EmptyDirVolumeSource::default()
    };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

fn pull_secrets(names: &[String]) -> Option<Vec<LocalObjectReference>> {
    let references = names.iter().map(|name| LocalObjectReference { name: name.clone() });
    (!names.is_empty()).then(|| references.collect())
}

fn resources(memory: &str) -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
        limits: Some(quantities(&[("memory", memory)])),
        claims: None,
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_resources::job::{PruneJob, TargetConfig};

    fn task(program: Program) -> Task {
        let config = PruneJob {
            namespace: "shop".to_owned(),
            backup: "b".to_owned(),
            target: TargetConfig::default(),
            path: "services/x/backups/b".to_owned(),
            wal_path: None,
        };
        Task {
            name: "b-prune".to_owned(),
            namespace: "shop".to_owned(),
            labels: BTreeMap::new(),
            owner: None,
            config: JobConfig::Prune(config),
            program,
            pull_secrets: Vec::new(),
            volumes: Vec::new(),
            mounts: Vec::new(),
            deadline_seconds: 60,
            attempts: 3,
            stay_seconds: 600,
        }
    }

    #[test]
    fn an_engines_job_has_the_runner_copied_in() {
        let engine = Program::Engine { engine: "pg:17".to_owned(), runner: "runner:1".to_owned() };
        let pod = task(engine).job().spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.init_containers.unwrap()[0].image.as_deref(), Some("runner:1"));
        assert_eq!(pod.containers[0].image.as_deref(), Some("pg:17"));
        assert_eq!(pod.containers[0].command.as_deref().unwrap(), ["/opt/culvert/bin/culvert-runner"]);
    }

    #[test]
    fn every_container_is_bounded_and_unprivileged() {
        let engine = Program::Engine { engine: "pg:17".to_owned(), runner: "runner:1".to_owned() };
        let pod = task(engine).job().spec.unwrap().template.spec.unwrap();
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
            assert!(limits.contains_key("memory"), "{}", container.name);
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
        }
    }

    #[test]
    fn attempts_are_counted_from_one() {
        assert_eq!(task(Program::Runner("r".to_owned())).job().spec.unwrap().backoff_limit, Some(2));
    }

    #[test]
    fn the_file_is_what_the_runner_reads() {
        let task = task(Program::Runner("r".to_owned()));
        let map = task.config_map(None).unwrap();
        let read: JobConfig = serde_json::from_str(&map.data.unwrap()["job.json"]).unwrap();
        assert_eq!(read, task.config);
    }
}
