//! What the policy lets through and what it does not.
use super::*;
use http::{Method, Uri};
use proptest::prelude::*;
use rstest::rstest;

fn ask(policy: &Policy, method: &str, uri: &str) -> Result<(), Denial> {
    let uri: Uri = uri.parse().unwrap();
    policy.check_request(&Request::read(&method.parse::<Method>().unwrap(), &uri))
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

const LIMITED: &str = r#"
owner: the platform team
allow:
  - name: shop
    namespaces: [shop, "team-*"]
  - verbs: [get, list, watch]
    resources: [nodes, customresourcedefinitions.apiextensions.k8s.io]
deny:
  - name: no secrets
    resources: [secrets]
  - resources: [pods/exec]
    namespaces: [team-b]
"#;

#[rstest]
#[case("GET", "/api/v1/namespaces/shop/pods", true)]
#[case("POST", "/apis/apps/v1/namespaces/team-a/deployments", true)]
#[case("GET", "/api/v1/namespaces/shopping/pods", false)]
#[case("GET", "/api/v1/namespaces/shop/secrets", false)]
#[case("GET", "/api/v1/namespaces/shop/secrets/x", false)]
#[case("GET", "/api/v1/pods", false)]
#[case("GET", "/api/v1/nodes", true)]
#[case("GET", "/api/v1/nodes/n1", true)]
#[case("GET", "/api/v1/nodes/n1/proxy/pods", false)]
#[case("DELETE", "/api/v1/nodes/n1", false)]
#[case("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", true)]
#[case("POST", "/api/v1/namespaces/team-a/pods/p/exec", true)]
#[case("POST", "/api/v1/namespaces/team-b/pods/p/exec", false)]
#[case("GET", "/api/v1/namespaces/team-b/pods/p/log", true)]
#[case("GET", "/version", true)]
#[case("GET", "/openapi/v3", true)]
#[case("GET", "/metrics", false)]
#[case("GET", "/api/v1/namespaces/shop%2Fpods", false)]
fn allow_and_deny(#[case] method: &str, #[case] uri: &str, #[case] passes: bool) {
    let answer = ask(&policy(LIMITED), method, uri);
    assert_eq!(answer.is_ok(), passes, "{answer:?}");
}

#[test]
fn a_denial_names_rule_and_owner() {
    let denial = ask(&policy(LIMITED), "GET", "/api/v1/namespaces/shop/secrets").unwrap_err();
    assert_eq!(denial.kind, DenialKind::Denied);
    assert_eq!(
        denial.message,
        "the cluster's local policy forbids: list secrets in namespace shop; by the `deny` rule \"no secrets\" \
         in the agent's policy file, which the platform team can change"
    );
}

#[rstest]
#[case("GET", "/api/v1/namespaces/kube-system/pods", false)]
#[case("GET", "/api/v1/namespaces/kube%2dsystem/pods", false)]
#[case("GET", "/api/v1/namespaces/kube-system", false)]
#[case("DELETE", "/api/v1/namespaces/kube-system", false)]
#[case("GET", "/api/v1/pods", false)]
#[case("GET", "/api/v1/nodes", true)]
#[case("GET", "/apis/example.org/v1/things/one", true)]
#[case("GET", "/apis/example.org/v1/things", false)]
#[case("GET", "/api/v1/namespaces/shop/pods", true)]
fn a_denied_namespace_is_not_reached_by_any_path(
    #[case] method: &str,
    #[case] uri: &str,
    #[case] passes: bool,
) {
    let answer = ask(&policy("deny: [{namespaces: [kube-system]}]"), method, uri);
    assert_eq!(answer.is_ok(), passes, "{answer:?}");
}

#[rstest]
#[case("GET", "/api/v1/namespaces/a/pods", true)]
#[case("GET", "/api/v1/namespaces/a/pods/p/log?follow=true", true)]
#[case("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true)]
#[case("POST", "/api/v1/namespaces/a/serviceaccounts/s/token", false)]
#[case("GET", "/api/v1/namespaces/a/pods/p/exec", false)]
#[case("GET", "/api/v1/namespaces/a/pods/p/portforward", false)]
#[case("PATCH", "/api/v1/namespaces/a/pods/p", false)]
#[case("OPTIONS", "/api/v1/namespaces/a/pods", false)]
fn read_only(#[case] method: &str, #[case] uri: &str, #[case] passes: bool) {
    let answer = ask(&policy("readOnly: true"), method, uri);
    assert_eq!(answer.is_ok(), passes, "{answer:?}");
}

#[test]
fn targets_are_only_those_listed() {
    let listed =
        policy("targets: {kubernetes: {}, orders: {tcp: 'orders.shop.svc:5432'}, six: {tcp: '[::1]:80'}}");
    assert_eq!(
        listed.check_target("orders").unwrap(),
        &Address { host: "orders.shop.svc".to_owned(), port: 5432 }
    );
    assert_eq!(listed.check_target("six").unwrap().host, "::1");
    assert_eq!(listed.check_target("10.0.0.1:80").unwrap_err().kind, DenialKind::UnknownTarget);
    assert_eq!(Policy::default().check_target("kubernetes").unwrap_err().kind, DenialKind::UnknownTarget);
    assert_eq!(ask(&policy("targets: {}"), "GET", "/version").unwrap_err().kind, DenialKind::UnknownTarget);
    let read_only = policy("readOnly: true\ntargets: {orders: {tcp: 'orders:1'}}");
    assert_eq!(read_only.check_target("orders").unwrap_err().kind, DenialKind::Denied);
}

#[rstest]
#[case("culvert:anna", &["culvert:admins"], true)]
#[case("anna", &[], false)]
#[case("", &[], false)]
#[case("culvert:anna", &["admins"], false)]
#[case("culvert:anna", &["culvert:admins", "system:masters"], false)]
#[case("system:admin", &[], false)]
#[case("culvert:\n", &[], false)]
fn callers(#[case] user: &str, #[case] groups: &[&str], #[case] passes: bool) {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    assert_eq!(Policy::default().check_caller(user, &groups).is_ok(), passes);
    let wide = policy("impersonate: {users: ['*'], groups: ['*']}");
    assert!(wide.check_caller("system:admin", &[]).is_err());
    assert!(wide.check_caller("anna", &["system:masters".to_owned()]).is_err());
}

#[rstest]
#[case("pasue: true", "pasue")]
#[case("pause: perhaps", "YAML")]
#[case("deny: [{verbs: [read]}]", "`read` is no verb")]
#[case("deny: [{verbs: []}]", "is empty")]
#[case("deny: [{resources: ['Pods']}]", "`Pods` is not understood")]
#[case("deny: [{resources: ['pods/exec/x']}]", "is not understood")]
#[case("deny: [{namespaces: ['a*b']}]", "is not understood")]
#[case("deny: [{namespace: [a]}]", "namespace")]
#[case("targets: {db: {}}", "targets.db")]
#[case("targets: {db: {tcp: nowhere}}", "needs `tcp: host:port`")]
#[case("targets: {db: {tcp: 'u:p@host:1'}}", "needs `tcp: host:port`")]
#[case("targets: {kubernetes: {tcp: 'a:1'}}", "takes no address")]
#[case("impersonate: {users: ['system:*']}", "never taken on")]
#[case("impersonate: {groups: ['sys*']}", "never taken on")]
#[case("pause: true\npause: false", "YAML")]
fn a_file_that_is_wrong_is_refused_with_the_reason(#[case] text: &str, #[case] says: &str) {
    let error = Policy::parse(text).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn the_example_is_a_policy() {
    let example = policy(include_str!("../../policy.example.yaml"));
    assert!(ask(&example, "GET", "/api/v1/namespaces/shop/pods").is_ok());
    assert!(ask(&example, "GET", "/api/v1/namespaces/shop/secrets").is_err());
    assert!(ask(&example, "GET", "/api/v1/namespaces/kube-system/pods").is_err());
    assert_eq!(example.check_target("orders-db").unwrap().port, 5432);
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(policy("# nothing\n---\n").sentence(), "");
    assert_eq!(policy(LIMITED).sentence(), "only what 2 rules allow; without what 2 rules deny");
    assert_eq!(policy("pause: true").sentence(), "remote access is paused by the owner of the cluster");
}

fn paths() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("api".to_owned()),
        Just("apis".to_owned()),
        Just("v1".to_owned()),
        Just("namespaces".to_owned()),
        Just("kube-system".to_owned()),
        Just("kube%2Dsystem".to_owned()),
        Just("pods".to_owned()),
        Just("exec".to_owned()),
        Just("watch".to_owned()),
        Just("proxy".to_owned()),
        Just("..".to_owned()),
        Just(String::new()),
        "[a-z%.]{1,6}",
    ];
    proptest::collection::vec(part, 0..9).prop_map(|parts| format!("/{}", parts.join("/")))
}

const METHODS: &str = "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT";

proptest! {
    #[test]
    fn a_pause_stops_everything(path in paths(), method in METHODS) {
        if path.parse::<Uri>().is_ok() {
            prop_assert_eq!(ask(&policy("pause: true"), &method, &path).unwrap_err().kind, DenialKind::Paused);
        }
    }

    #[test]
    fn read_only_lets_no_other_method_through_but_questions(path in paths(), method in "POST|PUT|PATCH|DELETE|OPTIONS|CONNECT") {
        if path.parse::<Uri>().is_ok() {
            prop_assert!(ask(&policy("readOnly: true"), &method, &path).is_err());
        }
    }

    #[test]
    fn rules_only_take_away(path in paths(), method in METHODS) {
        if path.parse::<Uri>().is_ok() && ask(&policy(LIMITED), &method, &path).is_ok() {
            prop_assert!(ask(&Policy::default(), &method, &path).is_ok());
        }
    }

    /// An allow list of one namespace never lets a path through that the API
    /// server, which decodes before it splits, would route to another.
    #[test]
    fn an_allowed_namespace_is_no_way_to_another(path in paths(), method in METHODS) {
        let only = policy("allow: [{namespaces: [shop]}]");
        if path.parse::<Uri>().is_ok() && ask(&only, &method, &path).is_ok() {
            let decoded = path.replace("%2D", "-").replace("%2d", "-");
            prop_assert!(!decoded.contains("namespaces/kube-system/"), "{}", path);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n]{0,200}") {
        let _ = Policy::parse(&text);
    }
}
