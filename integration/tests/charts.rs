//! The charts as an operator meets them: what they render, what they refuse, and
//! what a pod of theirs may do.
//!
//! Beside each expected render `NAME.yaml` in a chart's `golden/` lies
//! `NAME.values.yaml`, from which it came. `CULVERT_GEN=1`, which `make gen`
//! sets, writes the renders instead of comparing them.

// What serves a test fails as a test does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use culvert_integration::kube::ControlPlane;
use serde_json::Value;

const CHARTS: [&str; 3] = ["agent", "controller", "operator"];

/// The version that templates are told they are rendered for.
const KUBERNETES: &str = "1.35.4";

/// The least values that the agent's chart takes, for refusals to be added to.
const ADDRESS: &str = "controller: {address: \"culvert.example.com:443\"}\n";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart(name: &str) -> PathBuf {
    workspace().join("helm").join(name)
}

/// The helm that the Kubernetes kit builds.
fn helm() -> Command {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    let program = HELM.get_or_init(|| {
        let built = Command::new(workspace().join("integration/kube/build")).output().expect("the kit runs");
        assert!(built.status.success(), "the kit does not build: {}", text(&built.stderr));
        Path::new(text(&built.stdout).trim()).join("bin/helm")
    });
    Command::new(program)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `helm template` with a fixed release, as the golden renders have it.
fn template(chart_name: &str, values: &Path) -> Output {
    helm()
        .arg("template")
        .arg(format!("culvert-{chart_name}"))
        .arg(chart(chart_name))
        .args(["--namespace", "culvert", "--kube-version", KUBERNETES, "--values"])
        .arg(values)
        .output()
        .expect("helm runs")
}

/// Renders values that are given as text.
fn template_text(chart_name: &str, values: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).expect("values are written");
    template(chart_name, &file)
}

/// Every chart with every file of values that has an expected render.
fn cases() -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for name in CHARTS {
        for entry in std::fs::read_dir(chart(name).join("golden")).expect("a folder golden/") {
            let path = entry.expect("an entry").path();
            if path.to_string_lossy().ends_with(".values.yaml") {
                found.push((name, path));
            }
        }
    }
    found.sort();
    assert!(found.len() >= 7, "too few cases: {found:?}");
    found
}

/// The objects of a render.
fn objects(render: &str) -> Vec<Value> {
    render
        .split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str::<Value>(document).unwrap_or_else(|e| panic!("{e}:\n{document}"))
        })
        .filter(|object| !object.is_null())
        .collect()
}

fn render(chart_name: &str, values: &Path) -> Vec<Value> {
    let output = template(chart_name, values);
    assert!(output.status.success(), "{}: {}", values.display(), text(&output.stderr));
    objects(&text(&output.stdout))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn golden_renders_are_current() {
    for (name, values) in cases() {
        let output = template(name, &values);
        assert!(output.status.success(), "{}: {}", values.display(), text(&output.stderr));
        let golden = PathBuf::from(values.to_string_lossy().replace(".values.yaml", ".yaml"));
        let fresh = text(&output.stdout);
        if std::env::var_os("CULVERT_GEN").is_some() {
            std::fs::write(&golden, fresh).expect("the render is written");
            continue;
        }
        let committed = std::fs::read_to_string(&golden).unwrap_or_default();
        let common = committed.lines().zip(fresh.lines()).take_while(|(a, b)| a == b).count();
        assert!(
            committed == fresh,
            "{} differs from line {}; look at the change, then run `make gen`",
            golden.display(),
            common + 1
        );
    }
}

#[test]
fn lint_finds_nothing() {
    for (name, values) in cases() {
        let output = helm()
            .args(["lint", "--strict", "--values"])
            .arg(&values)
            .arg(chart(name))
            .output()
            .expect("helm runs");
        assert!(output.status.success(), "{}: {}", values.display(), text(&output.stdout));
    }
}

/// Each is refused, with words that say what to do and without the secret in it.
#[test]
#[allow(clippy::too_many_lines, reason = "it is a table")]
fn wrong_values_are_refused_in_clear_words() {
    let token = "cvj1.aaaaaaaaaaaaa.c2VjcmV0";
    let cases = [
        ("agent", "{}", "`controller.address` is required"),
        ("agent", "controller: {address: culvert.example.com}", "host:port with a port from 1 to 65535"),
        (
            "agent",
            "controller: {address: \"culvert.example.com:70000\"}",
            "host:port with a port from 1 to 65535",
        ),
        ("agent", "controller: {address: 443}", "at '/controller/address': got number, want string"),
        ("agent", "controller: {address: \"c:443\", domain: Culvert_1}", "at '/controller/domain'"),
        ("agent", &format!("{ADDRESS}tokn: x"), "additional properties 'tokn' not allowed"),
        ("agent", &format!("{ADDRESS}token: {token}"), "`token` is no join token"),
        ("agent", &format!("{ADDRESS}token: \"{}\"", "a".repeat(500)), "at '/token': maxLength"),
        (
            "agent",
            &format!("{ADDRESS}proxy: {{url: \"http://ada:{token}@proxy:3128\"}}"),
            "holds credentials",
        ),
        ("agent", &format!("{ADDRESS}proxy: {{url: \"proxy:3128\"}}"), "`proxy.url` is http://host:port"),
        ("agent", &format!("{ADDRESS}proxy: {{url: \"http://proxy:0\"}}"), "`proxy.url` is http://host:port"),
        (
            "agent",
            &format!("{ADDRESS}proxy: {{credentials: {{secretName: x}}}}"),
            "mean nothing without `proxy.url`",
        ),
        (
            "agent",
            &format!("{ADDRESS}proxy: {{url: \"http://p:1\", ca: {{secretName: a, configMapName: b}}}}"),
            "give the proxy's CA once",
        ),
        ("agent", &format!("{ADDRESS}image: {{digest: \"sha256:abc\"}}"), "at '/image/digest'"),
        ("agent", &format!("{ADDRESS}image: {{repository: \"a/b:1.0\"}}"), "at '/image/repository'"),
        ("agent", &format!("{ADDRESS}networkPolicy: {{dns: {{ports: [0]}}}}"), "minimum: got 0, want 1"),
        (
            "agent",
            &format!("{ADDRESS}networkPolicy: {{dns: {{cidrs: [\"10.0.0.0\"]}}}}"),
            "'/networkPolicy/dns/cidrs/0'",
        ),
        (
            "agent",
            &format!("{ADDRESS}access: [{{group: \"system:masters\", clusterRole: view}}]"),
            "'/access/0/group'",
        ),
        (
            "agent",
            &format!("{ADDRESS}impersonation: {{groups: [\"system:masters\"]}}"),
            "'/impersonation/groups/0'",
        ),
        ("agent", &format!("{ADDRESS}impersonation: {{groups: []}}"), "at '/impersonation/groups': minItems"),
        (
            "agent",
            &format!("{ADDRESS}policy: {{readonly: true}}"),
            "additional properties 'readonly' not allowed",
        ),
        ("agent", &format!("{ADDRESS}policy: {{deny: [{{verbs: [exec]}}]}}"), "'/policy/deny/0/verbs/0'"),
        ("agent", &format!("{ADDRESS}serviceAccount: {{create: false}}"), "needs `serviceAccount.name`"),
        ("controller", "{}", "`publicAddress` is required"),
        ("controller", "publicAddress: \"culvert.example.com:0\"", "host:port with a port from 1 to 65535"),
        ("controller", "publicAddress: \"c:443\"\nport: 1", "additional properties 'port' not allowed"),
        (
            "controller",
            "publicAddress: \"c:443\"\nservice: {port: 70000}",
            "maximum: got 70,000, want 65,535",
        ),
        (
            "controller",
            "publicAddress: \"c:443\"\nops: {port: 8443}",
            "`ops.port` 8443 is the controller's own port",
        ),
        ("controller", "publicAddress: \"c:443\"\nops: {port: 80}", "at '/ops/port': minimum"),
        ("controller", "publicAddress: \"c:443\"\ndatabase: {kind: mysql}", "one of 'sqlite', 'postgres'"),
        (
            "controller",
            "publicAddress: \"c:443\"\ndatabase: {kind: postgres}",
            "needs `database.existingSecret.name`",
        ),
        (
            "controller",
            "publicAddress: \"c:443\"\nreplicas: 2",
            "`replicas` above 1 need `database.kind: postgres`",
        ),
        (
            "controller",
            "publicAddress: \"c:443\"\nreplicas: 2\ndatabase: {kind: postgres, existingSecret: {name: d}}",
            "`replicas` above 1 need `keys.existingSecret`",
        ),
        ("controller", "publicAddress: \"c:443\"\npersistence: {size: lots}", "at '/persistence/size'"),
        (
            "controller",
            "publicAddress: \"c:443\"\nservice: {nodePort: 30000}",
            "mean nothing with `service.type",
        ),
        ("operator", "engines: {postgresql: {images: {\"15\": a}}}", "invalid propertyName '15'"),
        ("operator", "engines: {postgresql: {image: a}}", "additional properties 'image' not allowed"),
        ("operator", "replicas: 9", "at '/replicas': maximum"),
        ("operator", "dataPlane: {egressProxy: \"proxy:1\"}", "`dataPlane.egressProxy` is http://host:port"),
        ("operator", "dataPlane: {egressProxy: \"http://ada:x@proxy:1\"}", "holds credentials"),
        (
            "operator",
            "dataPlane: {create: false}\nengines: {valkey: {images: {\"8.1.1\": v}}}",
            "`engines` means nothing",
        ),
        ("operator", "leaseSeconds: 1", "at '/leaseSeconds': minimum"),
    ];
    for (name, values, words) in cases {
        let output = template_text(name, values);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{name} takes {values}");
        assert!(said.contains(words), "{name} with {values} says: {said}\nand not: {words}");
        assert!(!said.contains(token), "{name} prints the secret: {said}");
    }
}

#[test]
fn a_token_is_given_once() {
    let values = std::fs::read_to_string(chart("agent").join("golden/default.values.yaml")).expect("values");
    let output = template_text("agent", &format!("{values}\nexistingTokenSecret: {{name: join}}\n"));
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("give the join token once"), "{}", text(&output.stderr));
}

/// `--set-file` keeps a token off the command line, and brings the file's line end along.
#[test]
fn a_token_from_a_file_loses_its_line_end() {
    let values = chart("agent").join("golden/default.values.yaml");
    let given: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(values).expect("values")).expect("YAML");
    let token = given["token"].as_str().expect("a token");
    let output = template_text("agent", &format!("{ADDRESS}token: \"{token}\\n\"\n"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let objects = objects(&text(&output.stdout));
    let held: Vec<&Value> =
        of_kind(&objects, "Secret").iter().map(|secret| &secret["stringData"]["token"]).collect();
    assert!(held.contains(&&Value::from(token)), "{held:?}");
}

#[test]
fn every_value_has_its_line_in_values_yaml_and_in_the_schema() {
    for name in CHARTS {
        let read = |file: &str| std::fs::read_to_string(chart(name).join(file)).expect("a file of the chart");
        let values: Value = serde_saphyr::from_str(&read("values.yaml")).expect("values.yaml is YAML");
        let schema: Value = serde_json::from_str(&read("values.schema.json")).expect("the schema is JSON");
        let mut wanted: Vec<&String> = schema["properties"].as_object().expect("properties").keys().collect();
        wanted.retain(|key| *key != "global");
        let mut given: Vec<&String> = values.as_object().expect("an object").keys().collect();
        wanted.sort();
        given.sort();
        assert_eq!(given, wanted, "{name}");
        assert_closed(&schema, name);
    }
}

/// Wherever the schema lists properties, no others are taken.
fn assert_closed(schema: &Value, at: &str) {
    if schema["properties"].is_object() {
        assert_eq!(schema["additionalProperties"], false, "{at} takes unknown keys");
    }
    match schema {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| assert_closed(value, &format!("{at}/{key}")))
        }
        Value::Array(items) => items.iter().for_each(|value| assert_closed(value, at)),
        _ => {}
    }
}

#[test]
fn pods_hold_no_privilege() {
    for (name, values) in cases() {
        let objects = render(name, &values);
        let mut workloads = of_kind(&objects, "Deployment");
        workloads.extend(of_kind(&objects, "StatefulSet"));
        assert_eq!(workloads.len(), 1, "{}", values.display());
        let pod = &workloads[0]["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for key in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert!(pod[key].is_null(), "{}: {key}", values.display());
        }
        for container in list(&pod["containers"]) {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["privileged"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
            assert!(security["capabilities"]["add"].is_null());
            assert!(container["resources"]["requests"]["memory"].is_string());
            // A secret in the environment is a secret in `kubectl describe`.
            let harmless = |variable: &Value| {
                variable["name"] == "CULVERT_CONTROLLER_CONFIG"
                    || variable["value"] == "$(POD_IP):8443"
                    || variable["valueFrom"]["fieldRef"].is_object()
            };
            assert!(list(&container["env"]).iter().all(harmless));
        }
        let host_paths = list(&pod["volumes"]).iter().filter(|volume| !volume["hostPath"].is_null()).count();
        assert_eq!(host_paths, 0);
    }
}

#[test]
fn nothing_of_the_agent_listens() {
    for (_, values) in cases().into_iter().filter(|(name, _)| *name == "agent") {
        let objects = render("agent", &values);
        assert!(of_kind(&objects, "Service").is_empty());
        let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
        assert!(pod["containers"][0]["ports"].is_null());
        for policy in of_kind(&objects, "NetworkPolicy") {
            assert_eq!(policy["spec"]["ingress"], serde_json::json!([]));
            assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
        }
    }
}

#[test]
fn the_agents_rights_are_the_least() {
    for (_, values) in cases().into_iter().filter(|(name, _)| *name == "agent") {
        let objects = render("agent", &values);
        let all: Vec<&Value> =
            of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role")).collect();
        // One is the control plane's, and bound to its group.
        let (others, roles): (Vec<&Value>, Vec<&Value>) =
            all.into_iter().partition(|role| name_of(role).ends_with(":controllers"));
        assert_eq!((roles.len(), others.len()), (3, 1), "{}", values.display());
        for rule in others.iter().flat_map(|role| list(&role["rules"])) {
            assert!(!rule.to_string().contains("secrets") && !rule.to_string().contains('*'), "{rule}");
        }
        for rule in roles.iter().flat_map(|role| list(&role["rules"])) {
            assert_least(rule, &values);
        }
        assert!(of_kind(&objects, "Role").iter().all(|role| role["metadata"]["namespace"] == "culvert"));
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The chart brings the definitions that the types make (its folder is a link to them), each with the order to keep it.
#[test]
fn the_operators_chart_brings_the_definitions_and_keeps_them() {
    let output = template_text("operator", "definitions: {install: true}");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let objects = objects(&text(&output.stdout));
    let brought = of_kind(&objects, "CustomResourceDefinition");
    let mut made = 0;
    for entry in std::fs::read_dir(workspace().join("resources/crds")).expect("a folder") {
        let read = std::fs::read_to_string(entry.expect("an entry").path()).expect("a definition");
        let definition: Value = serde_saphyr::from_str(&read).expect("YAML");
        let name = &definition["metadata"]["name"];
        let found = brought.iter().find(|brought| brought["metadata"]["name"] == *name);
        let found = found.unwrap_or_else(|| panic!("{name} is not in the chart"));
        assert_eq!(found["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        same(&found["spec"], &definition["spec"], name.as_str().expect("a name"));
        made += 1;
    }
    assert_eq!(brought.len(), made);
}

/// As equal, where a number may be written in two ways.
fn same(left: &Value, right: &Value, at: &str) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{at}");
            a.iter().for_each(|(key, value)| same(value, &right[key], &format!("{at}.{key}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).for_each(|(a, b)| same(a, b, at));
        }
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64(), "{at}"),
        _ => assert_eq!(left, right, "{at}"),
    }
}

#[test]
fn the_operator_reads_secrets_by_name_only_and_has_no_wildcard() {
    for (_, values) in cases().into_iter().filter(|(name, _)| *name == "operator") {
        let objects = render("operator", &values);
        let roles = of_kind(&objects, "ClusterRole");
        let own = roles.iter().find(|role| role["metadata"]["name"] == "culvert:culvert-operator");
        for rule in list(&own.expect("the operator's role")["rules"]) {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{}: {text}", values.display());
            let verbs: Vec<&str> = list(&rule["verbs"]).iter().filter_map(Value::as_str).collect();
            for forbidden in ["escalate", "bind", "impersonate", "deletecollection"] {
                assert!(!verbs.contains(&forbidden), "{}: {text}", values.display());
            }
            if list(&rule["resources"]).iter().any(|resource| resource == "secrets") {
                assert_eq!(verbs, ["get", "create", "patch", "delete"]);
            }
        }
    }
}

fn assert_least(rule: &Value, values: &Path) {
    let at = format!("{}: {rule}", values.display());
    let named = !list(&rule["resourceNames"]).is_empty();
    for verb in list(&rule["verbs"]).iter().filter_map(Value::as_str) {
        assert!(["get", "list", "watch", "update", "patch", "delete", "impersonate"].contains(&verb), "{at}");
        for resource in list(&rule["resources"]).iter().filter_map(Value::as_str) {
            match (resource, verb) {
                ("nodes" | "storageclasses", "list") => {}
                ("backuptargets/status", "patch") => {}
                (_, "list" | "watch") if rule["apiGroups"] == serde_json::json!(["data.culvert.dev"]) => {}
                ("userextras/culvert.dev/org" | "userextras/culvert.dev/request-id", "impersonate") => {}
                ("users", "impersonate") => {}
                ("groups", "impersonate") | ("namespaces", "get") | ("secrets", _) => {
                    assert!(named, "{at} is not limited to names");
                }
                _ => panic!("{at} is more than the agent needs"),
            }
        }
    }
    for name in list(&rule["resourceNames"]).iter().filter_map(Value::as_str) {
        assert!(!name.starts_with("system:"), "{at}");
    }
}

/// A role of a binding cannot be changed in place: another role must give
/// another name, or an upgrade fails.
#[test]
fn a_changed_role_makes_a_new_binding() {
    let name = |role: &str| {
        let values = format!("{ADDRESS}access: [{{group: \"culvert:admins\", clusterRole: {role}}}]\n");
        let objects = objects(&text(&template_text("agent", &values).stdout));
        of_kind(&objects, "ClusterRoleBinding")
            .iter()
            .find(|binding| binding["roleRef"]["name"] == role)
            .map(|binding| binding["metadata"]["name"].clone())
            .expect("a binding to the role")
    };
    assert_ne!(name("view"), name("edit"));
    assert_eq!(name("view"), name("view"));
}

#[test]
fn a_token_lies_in_a_secret_and_nowhere_else() {
    let values = chart("agent").join("golden/default.values.yaml");
    let given: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(&values).expect("values")).expect("YAML");
    let token = given["token"].as_str().expect("a token");
    let objects = render("agent", &values);
    let holders: Vec<&Value> = objects.iter().filter(|object| object.to_string().contains(token)).collect();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0]["kind"], "Secret");
}

/// What the agent's service account may do, asked of a real API server.
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_account_can_do_its_work_and_no_more() {
    const PERSON: [&str; 4] = ["--as", "culvert:ada", "--as-group", "culvert:admins"];
    const EXTRAS: [&str; 4] =
        ["--as-user-extra", "culvert.dev/org=a", "--as-user-extra", "culvert.dev/request-id=b"];
    let plane = ControlPlane::start().await.expect("a control plane");
    install(&plane).await;
    let account = plane.service_account_kubeconfig("culvert", "culvert-agent").await.expect("an account");
    let own = ["-n", "culvert"];
    let controller = ["--as", "culvert:controller", "--as-group", "culvert:controllers"];
    let allowed: [Vec<&str>; 8] = [
        [&controller[..], &["get", "pods", "-n", "culvert"]].concat(),
        vec!["get", "nodes"],
        vec!["get", "storageclasses"],
        vec!["get", "namespace", "kube-system"],
        [&own[..], &["get", "secret", "culvert-agent-state"]].concat(),
        [&PERSON[..], &EXTRAS, &["get", "secrets", "--all-namespaces"]].concat(),
        vec!["--as", "culvert:bob", "--as-group", "culvert:readers", "get", "pods", "--all-namespaces"],
        [&own[..], &["delete", "secret", "culvert-agent-token"]].concat(),
    ];
    let forbidden: [Vec<&str>; 13] = [
        vec![
            "--as",
            "culvert:controller",
            "--as-group",
            "culvert:controllers",
            "get",
            "secrets",
            "-n",
            "culvert",
        ],
        vec!["get", "pods", "--all-namespaces"],
        vec!["get", "namespaces"],
        [&own[..], &["get", "secrets"]].concat(),
        [&own[..], &["get", "secret", "culvert-agent-token"]].concat(),
        [&own[..], &["delete", "secret", "culvert-agent-state"]].concat(),
        [&own[..], &["create", "secret", "generic", "other"]].concat(),
        vec!["--as", "culvert:bob", "--as-group", "culvert:readers", "get", "secrets", "--all-namespaces"],
        vec!["--as", "culvert:ada", "--as-group", "system:masters", "get", "nodes"],
        vec!["--as", "system:serviceaccount:kube-system:default", "get", "nodes"],
        [&PERSON[..], &["--as-uid", "7", "get", "nodes"]].concat(),
        [&PERSON[..], &["--as-user-extra", "example.com/x=y", "get", "nodes"]].concat(),
        vec!["--as", "culvert:controller", "--as-group", "culvert:controllers", "get", "nodes"],
    ];
    for arguments in allowed {
        let output = plane.kubectl_as(&account, &arguments).await.expect("kubectl runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }
    for arguments in forbidden {
        let output = plane.kubectl_as(&account, &arguments).await.expect("kubectl runs");
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.to_lowercase().contains("forbidden"),
            "{arguments:?}: {said}"
        );
    }
    plane.stop().await.expect("the control plane ends");
}

/// Installs the agent's chart, without waiting for a pod that has no node to run on.
async fn install(plane: &ControlPlane) {
    let (path, values) = (chart("agent"), chart("agent").join("golden/default.values.yaml"));
    let arguments = [
        "install",
        "culvert-agent",
        path.to_str().expect("text"),
        "--namespace",
        "culvert",
        "--create-namespace",
        "--values",
        values.to_str().expect("text"),
    ];
    let output = plane.helm(&arguments).await.expect("helm runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Field names and values that only look right are found by the API server.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_render() {
    let plane = ControlPlane::start().await.expect("a control plane");
    for namespace in ["culvert", "shop-front"] {
        plane.get(&["create", "namespace", namespace]).await.expect("a namespace");
    }
    for (_, values) in cases() {
        let golden = values.to_string_lossy().replace(".values.yaml", ".yaml");
        let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", &golden];
        let output = plane.kubectl(&arguments).await.expect("kubectl runs");
        assert!(output.status.success(), "{golden}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{golden}: {}", text(&output.stderr));
    }
    plane.stop().await.expect("the control plane ends");
}
