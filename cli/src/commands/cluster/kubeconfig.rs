//! A kubeconfig for a cluster: on standard output, in a file, or merged.

use std::path::PathBuf;

use clap::Args;

use super::missing;
use crate::failure::{Exit, Failure};
use crate::files::{self, KubectlLock};
use crate::invocation::Invocation;
use crate::kubeconfig::{self, Exec};
use crate::output::Tree;

/// How long to wait for a kubectl that writes the same file.
const KUBECTL_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// A kubeconfig of a hundred clusters with inlined CAs is under 1 MB.
const KUBECONFIG_LIMIT: u64 = 32 << 20;

/// Write a kubeconfig with which kubectl passes through the gateway as you
#[derive(Args)]
#[command(after_help = "kubectl asks `culvert kube credential` for a certificate of at most one hour.
Without --merge and --output the kubeconfig goes to standard output.

Examples:
  culvert cluster kubeconfig edge-1 --merge && kubectl get nodes
  culvert cluster kubeconfig edge-1 --output edge-1.yaml
  KUBECONFIG=edge-1.yaml kubectl get nodes")]
pub(crate) struct Kubeconfig {
    /// Name or id of the cluster
    cluster: String,
    /// Merge into the file that kubectl uses: KUBECONFIG, else ~/.kube/config
    #[arg(long, conflicts_with = "output")]
    merge: bool,
    /// Write to this file, which must not hold anything else
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the entries in the kubeconfig, instead of the controller's choice
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Leave the current context of the merged file as it is
    #[arg(long, requires = "merge")]
    keep_current: bool,
}

impl Kubeconfig {
    /// What `culvert kube login` does.
    pub(crate) fn merged(cluster: String, name: Option<String>, keep_current: bool) -> Self {
        Self { cluster, merge: true, output: None, name, keep_current }
    }
}

pub(crate) async fn run(run: &Invocation, args: Kubeconfig) -> Result<(), Failure> {
    let (context, _) = run.context()?;
    let client = run.client().await?;
    let path = ["clusters", args.cluster.as_str(), "kubeconfig"];
    let ask = client.ask(http::Method::GET, &path).query("exec", "culvert");
    let answer = client.send(ask).await.map_err(|f| missing(f, &args.cluster))?;
    let text = String::from_utf8_lossy(&answer.body);
    let mut config = Tree::from_yaml(&text).map_err(|error| {
        Failure::new(Exit::Failed, "the controller's kubeconfig is not understood").because(error)
    })?;
    kubeconfig::set_exec(&mut config, &exec(run, &context));
    if let Some(name) = &args.name {
        kubeconfig::rename(&mut config, name);
    }
    if args.merge {
        return merge(run, &config, args.keep_current);
    }
    let text = config.yaml()?;
    match &args.output {
        Some(path) => {
            files::write_in_place(path, text.as_bytes()).map_err(|e| Failure::file("write", path, &e))?;
            run.out.note(&format!(
                "wrote {}; next: KUBECONFIG={} kubectl get nodes",
                path.display(),
                path.display()
            ));
            Ok(())
        }
        None if run.out.format == crate::output::Format::Json => run.out.data(&(config.json()? + "\n")),
        None => run.out.data(&text),
    }
}

/// How kubectl calls this program again: by name when that name leads here.
fn exec(run: &Invocation, context: &str) -> Exec {
    let here = &run.around.program;
    let same = |found: &PathBuf| found.canonicalize().ok() == here.canonicalize().ok();
    let by_name = run.around.find_program("culvert").is_some_and(|found| same(&found));
    let command = if by_name { "culvert".to_owned() } else { here.to_string_lossy().into_owned() };
    let config = run.around.variable("CULVERT_CONFIG").and_then(|path| std::path::absolute(path).ok());
    Exec {
        command,
        context: context.to_owned(),
        config: config.map(|path| path.to_string_lossy().into_owned()),
    }
}

fn merge(run: &Invocation, config: &Tree, keep_current: bool) -> Result<(), Failure> {
    let path = run.around.kubeconfig_file();
    let _held =
        KubectlLock::take(&path, KUBECTL_WAIT).map_err(|error| Failure::file("lock", &path, &error))?;
    let before = files::read_text(&path, KUBECONFIG_LIMIT).map_err(|e| Failure::file("read", &path, &e))?;
    let unusable = |why: String| {
        Failure::new(Exit::Failed, format!("cannot merge into {}", path.display()))
            .because(why)
            .next("mend the file, or use --output FILE; it was not touched")
    };
    let existing = match before.as_deref().map(str::trim) {
        None | Some("") => Tree::Null,
        Some(text) => Tree::from_yaml(text).map_err(&unusable)?,
    };
    let merged = kubeconfig::merge(existing, config, keep_current).map_err(|why| match why {
        kubeconfig::MergeError::Taken { kind, name } => Failure::new(
            Exit::Conflict,
            format!("{} already has another {kind} named {name}", path.display()),
        )
        .next("choose another name with --as NAME; the file was not touched"),
        other => unusable(other.to_string()),
    })?;
    files::write_in_place(&path, merged.yaml()?.as_bytes()).map_err(|e| Failure::file("write", &path, &e))?;
    let name = kubeconfig::context_name(config).unwrap_or_default();
    let how = if keep_current {
        format!("kubectl --context {name} get nodes")
    } else {
        "kubectl get nodes".to_owned()
    };
    run.out.note(&format!("merged the context {name} into {}; next: {how}", path.display()));
    Ok(())
}
