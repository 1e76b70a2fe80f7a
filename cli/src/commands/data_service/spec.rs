//! The flags that make up a spec, for creating and changing alike.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::args::pair;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::Tree;

/// A spec is a page; nobody has one of this size.
pub(crate) const FILE_LIMIT: u64 = 1 << 20;

/// What a data service shall be
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct SpecFlags {
    /// Major version for its newest release in the cluster, or an exact one
    #[arg(long = "version", value_name = "VERSION")]
    version: Option<String>,
    /// Instances, the primary included
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// A commit waits for a standby: no acknowledged write is lost in a failover
    #[arg(long, value_name = "YES|NO", value_parser = truth, num_args = 0..=1, default_missing_value = "yes", require_equals = true)]
    synchronous: Option<bool>,
    /// CPU of each instance, such as 500m or 2
    #[arg(long)]
    cpu: Option<String>,
    /// Memory of each instance, such as 2Gi
    #[arg(long)]
    memory: Option<String>,
    /// Volume of each instance, such as 20Gi; it can only grow
    #[arg(long, value_name = "SIZE")]
    storage: Option<String>,
    /// Let the volume grow by itself up to this size
    #[arg(long, value_name = "SIZE")]
    growth_limit: Option<String>,
    /// A parameter of the engine; may be given several times; KEY= takes it away
    #[arg(short = 'p', long = "parameter", value_name = "KEY=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// Where backups and the log archive go
    #[arg(long, value_name = "TARGET")]
    backup_target: Option<String>,
    /// Refuse to delete it
    #[arg(long, value_name = "YES|NO", value_parser = truth, num_args = 0..=1, default_missing_value = "yes", require_equals = true)]
    protect: Option<bool>,
    /// What deleting it means for the data
    #[arg(long, value_parser = ["retain", "final-backup", "delete"])]
    on_delete: Option<String>,
    /// Spec as YAML or JSON, or a whole DataService; flags win over it
    #[arg(short, long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("\"{text}\" is neither yes nor no")),
    }
}

impl SpecFlags {
    /// The spec, or the part of it that is given.
    pub(super) fn spec(&self) -> Result<Map<String, Value>, Failure> {
        let mut spec = match &self.file {
            Some(file) => from_file(file)?,
            None => Map::new(),
        };
        let text = |value: &Option<String>| value.clone().map(Value::String);
        put(&mut spec, &["version"], text(&self.version));
        put(&mut spec, &["topology", "replicas"], self.replicas.map(Value::from));
        put(&mut spec, &["topology", "synchronous"], self.synchronous.map(Value::from));
        put(&mut spec, &["resources", "cpu"], text(&self.cpu));
        put(&mut spec, &["resources", "memory"], text(&self.memory));
        put(&mut spec, &["storage", "size"], text(&self.storage));
        put(&mut spec, &["storage", "growthLimit"], text(&self.growth_limit));
        for (key, value) in &self.parameters {
            let value = if value.is_empty() { Value::Null } else { json!(value) };
            put(&mut spec, &["parameters", key], Some(value));
        }
        put(&mut spec, &["backup", "target"], text(&self.backup_target));
        put(&mut spec, &["deletion", "protection"], self.protect.map(Value::from));
        put(&mut spec, &["deletion", "strategy"], self.on_delete.as_deref().map(strategy));
        Ok(spec)
    }
}

fn strategy(word: &str) -> Value {
    json!(match word {
        "final-backup" => "FinalBackup",
        "delete" => "Delete",
        _ => "Retain",
    })
}

/// Sets a value below names, making the maps on the way.
pub(super) fn put(into: &mut Map<String, Value>, path: &[&str], value: Option<Value>) {
    let (Some(value), Some((first, rest))) = (value, path.split_first()) else { return };
    if rest.is_empty() {
        into.insert((*first).to_owned(), value);
        return;
    }
    let below = into.entry((*first).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if !below.is_object() {
        *below = Value::Object(Map::new());
    }
    if let Value::Object(below) = below {
        put(below, rest, Some(value));
    }
}

/// A spec, or the spec of a whole object.
fn from_file(file: &std::path::Path) -> Result<Map<String, Value>, Failure> {
    let text = files::read_text(file, FILE_LIMIT).map_err(|error| Failure::file("read", file, &error))?;
    let text =
        text.ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", file.display())))?;
    let wrong =
        |why: String| Failure::new(Exit::Usage, format!("{} is no spec", file.display())).because(why);
    let tree = Tree::from_yaml(&text).map_err(wrong)?;
    let value = serde_json::to_value(&tree).map_err(|error| wrong(error.to_string()))?;
    let spec = match value.get("spec") {
        Some(spec) if value.get("kind").is_some() => spec.clone(),
        _ => value,
    };
    match spec {
        Value::Object(spec) => Ok(spec),
        _ => Err(wrong("it is not a map of fields".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_spec_with_only_what_was_given() {
        let flags = SpecFlags {
            memory: Some("2Gi".to_owned()),
            synchronous: Some(true),
            parameters: vec![("work_mem".to_owned(), "8MB".to_owned()), ("jit".to_owned(), String::new())],
            on_delete: Some("final-backup".to_owned()),
            ..SpecFlags::default()
        };
        let expected = json!({
            "resources": {"memory": "2Gi"}, "topology": {"synchronous": true},
            "parameters": {"work_mem": "8MB", "jit": null}, "deletion": {"strategy": "FinalBackup"},
        });
        assert_eq!(Value::Object(flags.spec().unwrap()), expected);
        assert!(SpecFlags::default().spec().unwrap().is_empty());
    }

    #[test]
    fn a_file_may_hold_a_spec_or_an_object_and_flags_win() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.yaml");
        for text in [
            "engine: postgresql\nversion: \"15\"\n",
            "kind: DataService\nspec:\n  engine: postgresql\n  version: '15'\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let flags = SpecFlags {
                file: Some(file.clone()),
                version: Some("17".to_owned()),
                ..SpecFlags::default()
            };
            assert_eq!(
                Value::Object(flags.spec().unwrap()),
                json!({"engine": "postgresql", "version": "17"})
            );
        }
        std::fs::write(&file, "[1, 2]").unwrap();
        let flags = SpecFlags { file: Some(file), ..SpecFlags::default() };
        assert_eq!(flags.spec().unwrap_err().exit, Exit::Usage);
    }
}
