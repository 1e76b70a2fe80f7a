//! A kubeconfig that leads through the gateway.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::Shared;
use super::ask::{Asking, Filter, Named};
use super::status::Problem;
use crate::app::Info;
use crate::domain::{ClusterRef, Fault};

/// How kubectl shall get its credential.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KubeconfigQuery {
    /// `culvert`: by the exec plugin `culvert kube credential`. The only way there is,
    /// and the default.
    exec: Option<String>,
    /// The context of the command line that the plugin shall use, as
    /// `culvert context list` names it.
    context: Option<String>,
}

/// A kubeconfig for the gateway, without any secret in it.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/kubeconfig",
    tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name"), KubeconfigQuery),
    responses((status = 200, description = "The kubeconfig", body = String, content_type = "application/yaml"))
)]
pub(super) async fn kubeconfig(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
    Filter(query): Filter<KubeconfigQuery>,
) -> Result<impl IntoResponse, Problem> {
    if query.exec.as_deref().is_some_and(|exec| exec != "culvert") {
        return Err(Problem::invalid(vec![Fault::new("exec", "invalid", "must be culvert")]));
    }
    let context = query.context.as_deref().map(context).transpose()?;
    let view = shared.app.cluster(&caller, &which).await?;
    let (id, name) = (view.cluster.id.to_string(), view.cluster.name.to_string());
    let text = render(&shared.app.info(), &id, &name, context);
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text))
}

fn context(text: &str) -> Result<&str, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@:".contains(&b);
    if (1..=253).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') {
        Ok(text)
    } else {
        let detail = "must be 1 to 253 letters, digits and . _ - @ :";
        Err(Problem::invalid(vec![Fault::new("context", "invalid", detail)]))
    }
}

/// JSON is YAML, and quotes whatever a name could hold.
fn render(info: &Info, id: &str, name: &str, context: Option<&str>) -> String {
    let entry = format!("culvert-{name}");
    let mut args = vec!["kube", "credential"];
    args.extend(context.into_iter().flat_map(|c| ["--context", c]));
    let value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": entry,
        "clusters": [{"name": entry, "cluster": {
            "server": format!("https://{}/clusters/{id}", info.public_address),
            "tls-server-name": info.gateway_server_name,
            "certificate-authority-data": data_encoding::BASE64.encode(info.ca_pem.as_bytes()),
        }}],
        "users": [{"name": entry, "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "culvert",
            "args": args,
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": false,
            "installHint": "The command culvert is missing; get it from whoever runs this controller.",
        }}}],
        "contexts": [{"name": entry, "context": {"cluster": entry, "user": entry}}],
    });
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}
