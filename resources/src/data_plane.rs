//! `DataPlane`: what this cluster can run, and whether it is fit to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What this cluster can run. There is one, named `default`.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.culvert.dev",
    version = "v1alpha1",
    kind = "DataPlane",
    plural = "dataplanes",
    shortname = "dplane",
    category = "culvert",
    status = "DataPlaneStatus",
    derive = "PartialEq",
    doc = "What this cluster can run, and whether it is fit to.",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one data plane in a cluster, and its name is default"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Operator", type_ = "string", json_path = ".status.operatorVersion"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DataPlaneSpec {
    /// Container images by engine and exact version. A version without an image cannot run here.
    #[serde(default)]
    pub engines: BTreeMap<String, EngineImages>,
    /// Image that holds the runner; an init container copies it beside the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_image: Option<String>,
    /// Proxy for backups that leave the cluster, as `http://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<String>,
    /// Names of image pull Secrets that pods of databases use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Storage class for data services that name none; else the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// The agent, which opens credentials that are sealed to it. The operator lets it at the Secrets of backup targets
    /// with sealed credentials, one by one; without it, somebody else has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentAccount>,
}

/// The account that the agent runs under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentAccount {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of its ServiceAccount.
    #[schemars(length(min = 1, max = 253))]
    pub service_account: String,
}

/// Images of one engine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineImages {
    /// Image by exact version, such as `17.12: registry.example/postgresql@sha256:…`.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
}

/// What the operator found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlaneStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of the operator that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// Checks with result and remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Engine versions that can run here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineState>,
    /// What the cluster can do, such as `volume-expansion`, `snapshots`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// One check of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Stable name, such as `default-storage-class`.
    pub name: String,
    /// The result.
    pub result: CheckResult,
    /// What was found.
    pub message: String,
    /// What to do; empty when there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckResult {
    /// As it should be.
    Pass,
    /// Works, and should be better.
    Warn,
    /// Nothing can run.
    Fail,
}

/// An engine's version that can run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineState {
    /// The engine.
    pub engine: String,
    /// Exact version.
    pub version: String,
    /// Its image.
    pub image: String,
    /// Whether the catalogue of this operator knows the version and the driver is enabled.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
