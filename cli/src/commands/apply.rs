//! Applying manifests: the same files that kubectl takes, through the control plane.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::follow::{Waiting, follow};
use super::plan;
use super::view::text_at;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tree};

/// Objects of one request.
const LIMIT: u64 = 4 << 20;

/// Apply manifests of data services, schedules and targets
#[derive(Args)]
#[command(after_help = "Examples:
  culvert apply -f orders.yaml --cluster edge-1
  culvert apply -f orders.yaml --cluster edge-1 --dry-run
  culvert data-service export orders | culvert apply -f - --cluster edge-2")]
pub(crate) struct Apply {
    /// A file or a folder of .yaml and .json files, or - for standard input; may be given several times
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The cluster
    #[arg(long)]
    cluster: Option<String>,
    /// The project
    #[arg(long)]
    project: Option<String>,
    /// The namespace of objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Show what would change and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(run: &Invocation, args: Apply) -> Result<(), Failure> {
    let mut objects = Vec::new();
    for file in &args.files {
        objects.extend(read(file)?);
    }
    if objects.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no object in what was given"));
    }
    let client = run.waiting_client().await?;
    let body = json!({
        "objects": objects, "cluster": args.cluster, "project": args.project,
        "namespace": args.namespace, "dry_run": args.dry_run,
    });
    let answer = client.send(client.ask(Method::POST, &["apply"]).json(&body)?).await?.tree()?;
    let results = answer.get("items").unwrap_or(&answer).list();
    show(run, &answer, results)?;
    if args.waiting.no_wait || args.dry_run {
        return Ok(());
    }
    for result in results {
        if let Some(operation) = result.get("operation").filter(|operation| **operation != Tree::Null) {
            run.out.note(&format!("{} {}:", text_at(result, "kind"), text_at(result, "name")));
            follow(run, &client, text_at(operation, "id")).await?;
        }
    }
    Ok(())
}

fn show(run: &Invocation, answer: &Tree, results: &[Tree]) -> Result<(), Failure> {
    let mut table = Table::new(&["KIND", "NAME", "RESULT"], &[]);
    for result in results {
        let of = |key| Cell::new(text_at(result, key));
        table.row([of("kind"), of("name"), of("result")]);
    }
    let names: Vec<String> =
        results.iter().map(|r| format!("{}/{}", text_at(r, "kind"), text_at(r, "name"))).collect();
    run.out.answer(answer, &table, &names)?;
    if run.out.for_people() {
        for result in results {
            if let Some(planned) = result.get("plan").filter(|plan| **plan != Tree::Null) {
                run.out.data(&format!("\n{} {}\n", text_at(result, "kind"), text_at(result, "name")))?;
                plan::show(run, planned)?;
            }
        }
    }
    Ok(())
}

/// The objects of a file, a folder, or standard input.
fn read(file: &Path) -> Result<Vec<Value>, Failure> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        let unreadable = |error| Failure::new(Exit::Failed, "cannot read standard input").because(error);
        std::io::stdin().lock().take(LIMIT).read_to_string(&mut text).map_err(unreadable)?;
        return documents("standard input", &text);
    }
    if file.is_dir() {
        return folder(file);
    }
    let text = crate::files::read_text(file, LIMIT).map_err(|error| Failure::file("read", file, &error))?;
    let text =
        text.ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", file.display())))?;
    documents(&file.display().to_string(), &text)
}

fn folder(folder: &Path) -> Result<Vec<Value>, Failure> {
    let broken = |error| Failure::file("read", folder, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path
            .extension()
            .is_some_and(|extension| matches!(extension.to_str(), Some("yaml" | "yml" | "json")))
        {
            files.push(path);
        }
    }
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        objects.extend(read(&file)?);
    }
    Ok(objects)
}

/// The objects of YAML documents; lists are opened.
fn documents(name: &str, text: &str) -> Result<Vec<Value>, Failure> {
    let mut objects = Vec::new();
    for document in split(text) {
        let wrong = |why: String| Failure::new(Exit::Usage, format!("{name} is not a manifest")).because(why);
        let tree = Tree::from_yaml(&document).map_err(wrong)?;
        let value = serde_json::to_value(&tree).map_err(|error| wrong(error.to_string()))?;
        match value {
            Value::Null => {}
            Value::Object(mut map) if map.get("kind") == Some(&json!("List")) => {
                if let Some(Value::Array(items)) = map.remove("items") {
                    objects.extend(items);
                }
            }
            Value::Object(_) => objects.push(value),
            _ => return Err(wrong("it is not an object".to_owned())),
        }
    }
    Ok(objects)
}

/// The documents of a YAML stream.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line == "---" || line.starts_with("--- ") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let blank =
        |text: &String| text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    documents.retain(|document| !blank(document));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_documents_becomes_objects() {
        let text = "# a remark\n---\nkind: A\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n---\n\n";
        let objects = documents("x", text).unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }

    #[test]
    fn what_is_no_manifest_is_named() {
        for text in ["- 1\n- 2\n", "just text\n", "a: [1\n"] {
            let failure = documents("x.yaml", text).unwrap_err();
            assert!(failure.what.contains("x.yaml"), "{text}");
        }
    }
}
