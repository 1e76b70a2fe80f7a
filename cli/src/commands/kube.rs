//! What kubectl calls, and what makes kubectl call it.

use clap::{Args, Subcommand};

use super::cluster::kubeconfig::{self, Kubeconfig};
use crate::credential::{self, Credential};
use crate::failure::{Exit, Failure};
use crate::invocation::{Invocation, login_hint};
use crate::output::Tree;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

/// The one version of the plugin protocol that is spoken.
const PROTOCOL: &str = "client.authentication.k8s.io/v1";

/// kubectl through the gateway
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  culvert kube login edge-1\n  kubectl get nodes")]
pub(crate) enum Kube {
    Login(Login),
    Credential(CredentialArgs),
}

/// Point kubectl at a cluster: merge its kubeconfig and make it current
#[derive(Args)]
#[command(after_help = "The same as: culvert cluster kubeconfig CLUSTER --merge

Examples:
  culvert kube login edge-1 && kubectl get nodes
  culvert kube login edge-1 --keep-current")]
pub(crate) struct Login {
    /// Name or id of the cluster
    cluster: String,
    /// Name of the entries in the kubeconfig
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Leave kubectl's current context as it is
    #[arg(long)]
    keep_current: bool,
}

/// Print a short-lived credential; kubectl calls this by itself
#[derive(Args)]
#[command(
    after_help = "An exec credential plugin for kubectl, client.authentication.k8s.io/v1. The private key is
made here; the certificate lives for one hour at most and is kept, readable by you alone, until
five minutes before its end. It never asks anything.

Examples:
  culvert kube credential --context culvert.example.com"
)]
pub(crate) struct CredentialArgs {}

pub(crate) async fn run(run: &Invocation, command: Kube) -> Result<(), Failure> {
    match command {
        Kube::Login(args) => {
            kubeconfig::run(run, Kubeconfig::merged(args.cluster, args.name, args.keep_current)).await
        }
        Kube::Credential(_) => credential(run).await,
    }
}

async fn credential(run: &Invocation) -> Result<(), Failure> {
    check_protocol(run.around.text("KUBERNETES_EXEC_INFO"))?;
    let (name, context) = run.context()?;
    let ended = |failure: Failure| {
        let hint = match &run.globals.context {
            Some(_) => login_hint(&run.globals),
            None => format!("culvert login --context {name}"),
        };
        one_line(failure, &hint)
    };
    let token = run
        .token(&name)
        .map_err(ended)?
        .ok_or_else(|| ended(Failure::not_signed_in(format!("the context \"{name}\" has no session"))))?;
    if token.expose_secret().starts_with("cva1.") {
        return run.out.data(&bearer(token.expose_secret())?);
    }
    let client = async || run.client_of(&context, Some(token.clone())).await;
    let made = credential::obtain(&run.store, &name, &token, client).await.map_err(ended)?;
    run.out.data(&certificate(&made)?)
}

/// kubectl shows what a plugin writes among its own lines: one line is found, ten are not.
fn one_line(mut failure: Failure, hint: &str) -> Failure {
    if failure.exit == Exit::NotSignedIn {
        failure.what = format!("culvert: your sign-in has ended; run: {hint}");
        failure.why = None;
        failure.next = None;
        failure.code = None;
        failure.request_id = None;
    }
    failure
}

/// kubectl says which version it speaks; one that it did not say is taken for ours.
fn check_protocol(info: Option<&str>) -> Result<(), Failure> {
    let Some(info) = info else { return Ok(()) };
    let tree = Tree::from_json(info.as_bytes()).unwrap_or_default();
    match tree.get("apiVersion").and_then(Tree::text) {
        Some(version) if version != PROTOCOL => Err(Failure::new(
            Exit::Usage,
            format!("this kubeconfig asks for {version}, and only {PROTOCOL} is spoken"),
        )
        .next("culvert kube login CLUSTER, to write the kubeconfig again")),
        _ => Ok(()),
    }
}

fn exec_credential(status: Vec<(String, Tree)>) -> Result<Zeroizing<String>, Failure> {
    let tree = Tree::map([
        ("apiVersion", Tree::from(PROTOCOL)),
        ("kind", Tree::from("ExecCredential")),
        ("status", Tree::Map(status)),
    ]);
    Ok(Zeroizing::new(tree.json_line()? + "\n"))
}

fn certificate(made: &Credential) -> Result<Zeroizing<String>, Failure> {
    exec_credential(vec![
        (
            "expirationTimestamp".to_owned(),
            Tree::Text(made.use_until().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ),
        ("clientCertificateData".to_owned(), Tree::from(made.certificate_pem.as_str())),
        ("clientKeyData".to_owned(), Tree::from(made.key_pem.as_str())),
    ])
}

/// A machine's API token is a bearer at the gateway and needs no certificate.
fn bearer(token: &str) -> Result<Zeroizing<String>, Failure> {
    exec_credential(vec![("token".to_owned(), Tree::from(token))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_version_of_the_protocol_is_spoken() {
        assert!(check_protocol(None).is_ok());
        assert!(
            check_protocol(Some(r#"{"apiVersion":"client.authentication.k8s.io/v1","spec":{}}"#)).is_ok()
        );
        let old = check_protocol(Some(r#"{"apiVersion":"client.authentication.k8s.io/v1beta1"}"#));
        assert_eq!(old.unwrap_err().exit, Exit::Usage);
        assert!(check_protocol(Some("garbage")).is_ok(), "kubectl's own text is not ours to judge");
    }
}
