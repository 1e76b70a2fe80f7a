//! Kubeconfigs as values: name the entries, say who makes credentials, merge.
//!
//! A merge replaces entries that came from here before and appends new ones;
//! everything else stays: other entries, their order, fields nobody here knows.
//! Comments do not survive, as they do not survive kubectl's own writing.

use std::fmt;

use crate::output::Tree;

/// The three lists of a kubeconfig and the field that holds an entry's content.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];

/// How kubectl gets a credential.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    /// The program.
    pub(crate) command: String,
    /// The CLI's context.
    pub(crate) context: String,
    /// The CLI's config file when it is not the usual one.
    pub(crate) config: Option<String>,
}

/// Why a file was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MergeError {
    /// The file is YAML but no kubeconfig.
    Shape(&'static str),
    /// An entry of that name is somebody else's.
    Taken { kind: &'static str, name: String },
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(what) => write!(f, "it is no kubeconfig: {what}"),
            Self::Taken { kind, name } => write!(f, "it has another {kind} named {name}"),
        }
    }
}

/// Puts this program and context into every user's exec stanza.
pub(crate) fn set_exec(config: &mut Tree, exec: &Exec) {
    let args = ["kube", "credential", "--context", exec.context.as_str()];
    let variables = exec.config.iter().map(|path| {
        Tree::map([("name", Tree::from("CULVERT_CONFIG")), ("value", Tree::from(path.as_str()))])
    });
    let stanza = Tree::map([
        ("apiVersion", Tree::from("client.authentication.k8s.io/v1")),
        ("command", Tree::from(exec.command.as_str())),
        ("args", Tree::List(args.map(Tree::from).to_vec())),
        ("env", Tree::List(variables.collect())),
        ("interactiveMode", Tree::from("Never")),
        ("provideClusterInfo", Tree::Bool(false)),
        ("installHint", Tree::from("culvert is needed to sign in; see the documentation of your controller")),
    ]);
    let Some(Tree::List(users)) = config.get_mut("users") else { return };
    for user in users {
        if let Some(user) = user.get_mut("user") {
            user.set("exec", stanza.clone());
        }
    }
}

/// Gives the one entry of each list this name.
pub(crate) fn rename(config: &mut Tree, name: &str) {
    for (list, content) in LISTS {
        let Some(Tree::List(entries)) = config.get_mut(list) else { continue };
        for entry in entries {
            entry.set("name", Tree::from(name));
            if list == "contexts"
                && let Some(context) = entry.get_mut(content)
            {
                context.set("cluster", Tree::from(name));
                context.set("user", Tree::from(name));
            }
        }
    }
    config.set("current-context", Tree::from(name));
}

/// The context that a kubeconfig makes current.
pub(crate) fn context_name(config: &Tree) -> Option<String> {
    config.get("current-context").and_then(Tree::text).map(str::to_owned)
}

/// `existing` with the entries of `ours`.
pub(crate) fn merge(existing: Tree, ours: &Tree, keep_current: bool) -> Result<Tree, MergeError> {
    let mut merged = match existing {
        Tree::Null => Tree::map([("apiVersion", Tree::from("v1")), ("kind", Tree::from("Config"))]),
        map @ Tree::Map(_) => map,
        _ => return Err(MergeError::Shape("its top is not a map")),
    };
    if merged.get("kind").and_then(Tree::text).is_some_and(|kind| kind != "Config") {
        return Err(MergeError::Shape("its kind is not Config"));
    }
    for (list, content) in LISTS {
        let added = ours.get(list).map(Tree::list).unwrap_or_default();
        let mut entries = match merged.get(list) {
            None | Some(Tree::Null) => Vec::new(),
            Some(Tree::List(entries)) => entries.clone(),
            Some(_) => return Err(MergeError::Shape("clusters, users and contexts must be lists")),
        };
        for entry in added {
            put(&mut entries, entry, content)?;
        }
        merged.set(list, Tree::List(entries));
    }
    let current = merged.get("current-context").and_then(Tree::text).is_some_and(|name| !name.is_empty());
    if !(keep_current && current)
        && let Some(name) = context_name(ours)
    {
        merged.set("current-context", Tree::Text(name));
    }
    Ok(merged)
}

fn put(entries: &mut Vec<Tree>, entry: &Tree, content: &'static str) -> Result<(), MergeError> {
    let name = name_of(entry);
    match entries.iter_mut().find(|existing| name_of(existing) == name) {
        None => entries.push(entry.clone()),
        Some(existing) if replaceable(existing, entry, content) => {
            let body = entry.get(content).cloned().unwrap_or_default();
            // The namespace that the person chose for a context is theirs to keep.
            let namespace = existing.get(content).and_then(|context| context.get("namespace")).cloned();
            existing.set(content, body);
            if let (Some(namespace), Some(context)) = (namespace, existing.get_mut(content)) {
                context.set("namespace", namespace);
            }
        }
        Some(_) => {
            let name = name.unwrap_or_default().to_owned();
            return Err(MergeError::Taken { kind: content, name });
        }
    }
    Ok(())
}

fn name_of(entry: &Tree) -> Option<&str> {
    entry.get("name").and_then(Tree::text)
}

/// An entry that a merge may overwrite: one that came from here before.
fn replaceable(existing: &Tree, ours: &Tree, content: &str) -> bool {
    let field = |entry: &Tree, key: &str| -> Option<String> {
        entry.get(content)?.get(key)?.text().map(str::to_owned)
    };
    match content {
        // The same cluster at the same controller or at its new address.
        "cluster" => match (field(existing, "server"), field(ours, "server")) {
            (Some(theirs), Some(ours)) => path_of(&theirs) == path_of(&ours) && path_of(&ours).is_some(),
            _ => false,
        },
        "user" => {
            let exec = existing.get(content).and_then(|user| user.get("exec"));
            let args = exec.and_then(|exec| exec.get("args")).map(Tree::list).unwrap_or_default();
            args.starts_with(&[Tree::from("kube"), Tree::from("credential")])
        }
        _ => ["cluster", "user"].iter().all(|key| field(existing, key) == field(ours, key)),
    }
}

/// `/clusters/<id>` of a gateway's URL.
fn path_of(server: &str) -> Option<&str> {
    let at = server.find("/clusters/")?;
    server.get(at..).map(|path| path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tree_tests::any_tree;
    use proptest::prelude::*;

    fn ours(name: &str) -> Tree {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
             clusters:\n- name: {name}\n  cluster:\n    server: https://c.example:443/clusters/cls_{name}\n    \
             tls-server-name: kube.culvert.internal\n\
             users:\n- name: {name}\n  user:\n    exec:\n      command: culvert\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n"
        );
        let mut tree = Tree::from_yaml(&text).unwrap();
        let exec = Exec { command: "culvert".to_owned(), context: "c".to_owned(), config: None };
        set_exec(&mut tree, &exec);
        tree
    }

    /// A kubeconfig of somebody else, with fields that nobody knows.
    fn any_config() -> impl Strategy<Value = Tree> {
        let entry = |content: &'static str| {
            ("other-[a-z]{1,6}", any_tree(), any_tree()).prop_map(move |(name, body, extra)| {
                Tree::map([("name", Tree::Text(name)), (content, body), ("x-extra", extra)])
            })
        };
        let list = move |content| prop::collection::vec(entry(content), 0..4).prop_map(Tree::List);
        (list("cluster"), list("user"), list("context"), any_tree(), "[a-z]{0,5}").prop_map(
            |(clusters, users, contexts, preferences, current)| {
                Tree::map([
                    ("x-first", Tree::Bool(true)),
                    ("clusters", clusters),
                    ("contexts", contexts),
                    ("users", users),
                    ("preferences", preferences),
                    ("current-context", Tree::Text(current)),
                ])
            },
        )
    }

    proptest! {
        #[test]
        fn a_merge_loses_nothing(before in any_config(), keep in any::<bool>()) {
            let merged = merge(before.clone(), &ours("edge"), keep).unwrap();
            let through_a_file = Tree::from_yaml(&merged.yaml().unwrap()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&through_a_file, &merged);
            for (list, _) in LISTS {
                let (old, new) = (before.get(list).unwrap().list(), merged.get(list).unwrap().list());
                prop_assert_eq!(&new[..old.len()], old);
                let added = ours("edge");
                prop_assert_eq!(&new[old.len()..], added.get(list).unwrap().list());
            }
            for untouched in ["x-first", "preferences"] {
                prop_assert_eq!(merged.get(untouched), before.get(untouched));
            }
        }

        #[test]
        fn a_second_merge_changes_nothing(before in any_config()) {
            let once = merge(before, &ours("edge"), false).unwrap();
            prop_assert_eq!(merge(once.clone(), &ours("edge"), false).unwrap(), once);
        }

        #[test]
        fn any_file_is_merged_or_refused(before in any_tree()) {
            let _ = merge(before, &ours("edge"), false);
        }
    }

    #[test]
    fn an_empty_file_becomes_a_whole_kubeconfig() {
        let merged = merge(Tree::Null, &ours("edge"), true).unwrap();
        assert_eq!(context_name(&merged).as_deref(), Some("edge"));
        assert_eq!(merged.get("kind").and_then(Tree::text), Some("Config"));
    }

    #[test]
    fn somebody_elses_entry_is_never_overwritten() {
        for (list, content) in LISTS {
            let theirs = Tree::map([("name", Tree::from("edge")), (content, Tree::Map(Vec::new()))]);
            let before = Tree::Map(vec![(list.to_owned(), Tree::List(vec![theirs]))]);
            let error = merge(before, &ours("edge"), false).unwrap_err();
            assert_eq!(error, MergeError::Taken { kind: content, name: "edge".to_owned() });
        }
    }

    #[test]
    fn a_chosen_namespace_and_the_current_context_stay() {
        let mut before = merge(Tree::Null, &ours("edge"), false).unwrap();
        if let Some(Tree::List(contexts)) = before.get_mut("contexts") {
            contexts[0].get_mut("context").unwrap().set("namespace", Tree::from("shop"));
        }
        before.set("current-context", Tree::from("mine"));
        let merged = merge(before, &ours("edge"), true).unwrap();
        let context = merged.get("contexts").unwrap().list()[0].get("context").unwrap();
        assert_eq!(context.get("namespace").and_then(Tree::text), Some("shop"));
        assert_eq!(context_name(&merged).as_deref(), Some("mine"));
    }

    #[test]
    fn renaming_keeps_the_entries_together() {
        let mut config = ours("edge");
        rename(&mut config, "prod");
        let context = config.get("contexts").unwrap().list()[0].get("context").unwrap();
        assert_eq!(context.get("cluster").and_then(Tree::text), Some("prod"));
        assert_eq!(context.get("user").and_then(Tree::text), Some("prod"));
        assert_eq!(context_name(&config).as_deref(), Some("prod"));
    }
}
