//! Every path that the commands ask for is one that the API's committed document has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What `verb` stands for in `data_service/change.rs`, and where else a name stands for a word.
const VERBS: [&str; 5] = ["restart", "stop", "start", "rotate-credentials", "undelete"];

/// A method and the parts of a path; a part that is an expression is `{}`.
type Route = (String, Vec<String>);

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The parts between the brackets that follow.
fn parts(text: &str) -> Vec<String> {
    let inside = text.split_once(']').unwrap().0;
    let part = |part: &str| match part.trim().strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
        Some(word) => word.to_owned(),
        None if part.trim() == "verb" => "{verb}".to_owned(),
        None => "{}".to_owned(),
    };
    // An expression may have brackets and commas of its own: `text_at(&service, "id")`.
    let mut depth = 0;
    let split = inside.split(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    split.filter(|text| !text.trim().is_empty()).map(part).collect()
}

/// What one source asks for.
fn asked(source: &str) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    let source: String =
        source.split("mod tests {").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    for (at, _) in source.match_indices("ask(Method::") {
        let rest = &source[at + "ask(Method::".len()..];
        // Only `Client::get` passes on what it was given.
        let Some((method, rest)) = rest.split_once(", ") else { continue };
        if let Some(rest) = rest.strip_prefix("&[") {
            routes.insert((method.to_lowercase(), parts(rest)));
        }
    }
    for start in
        [".get(&[", "gather(&client, &[", "gather(&run.client().await?, &[", "gather(&self.client, &["]
    {
        for (at, _) in source.match_indices(start) {
            routes.insert(("get".to_owned(), parts(&source[at + start.len()..])));
        }
    }
    for (at, _) in source.match_indices("collection: \"") {
        let name = source[at + "collection: \"".len()..].split_once('"').unwrap().0;
        routes.insert(("get".to_owned(), vec![name.to_owned()]));
        routes.insert(("get".to_owned(), vec![name.to_owned(), "{}".to_owned()]));
    }
    // `Noun` itself asks for whatever collection it has.
    routes.retain(|(_, parts)| parts.first().is_some_and(|first| first != "{}"));
    routes
}

/// The routes with a verb, one for each.
fn spelled_out(routes: BTreeSet<Route>) -> BTreeSet<Route> {
    let spell = |(method, parts): Route| {
        let verbs = if parts.contains(&"{verb}".to_owned()) { &VERBS[..] } else { &[""] };
        let one = move |verb: &&str| {
            let parts = parts.iter().map(|part| part.replace("{verb}", verb)).collect();
            (method.clone(), parts)
        };
        verbs.iter().map(one).collect::<Vec<_>>()
    };
    routes.into_iter().flat_map(spell).collect()
}

/// The routes of the committed document.
fn documented() -> BTreeSet<Route> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/openapi.json");
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1/").unwrap();
        let parts: Vec<String> = path
            .split('/')
            .map(|part| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() })
            .collect();
        routes.extend(item.as_object().unwrap().keys().map(|method| (method.clone(), parts.clone())));
    }
    routes
}

#[test]
fn the_api_has_every_route_that_a_command_asks_for() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut routes = BTreeSet::new();
    for file in &files {
        routes.extend(asked(&std::fs::read_to_string(file).unwrap()));
    }
    let routes = spelled_out(routes);
    assert!(routes.len() > 60, "the sources are no longer understood: {routes:#?}");
    let missing: Vec<_> = routes.difference(&documented()).cloned().collect();
    assert!(missing.is_empty(), "the API has no such routes: {missing:#?}");
}

#[test]
fn a_route_is_found_in_a_source() {
    let source =
        r#"client.ask(Method::POST, &["a", text_at(&service, "id"), verb]); x.get(&["b"]) mod tests { "#;
    let routes = spelled_out(asked(source));
    assert!(
        routes.contains(&("post".to_owned(), vec!["a".into(), "{}".into(), "stop".into()])),
        "{routes:?}"
    );
    assert!(routes.contains(&("get".to_owned(), vec!["b".into()])) && routes.len() == 6);
}
