//! Fails when a room imports upward, when a crate depends against the house's directions, or
//! when `main.rs` tells more than the life of the process.
// A test says what is wrong by stopping.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that cannot go on stops, and nobody imports it"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room of the controller may import, besides itself. A room that is not listed here
/// has no place in the house yet.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("cli", &["config"]),
    ("supervise", &[]),
    ("telemetry", &["config"]),
    ("ops", &["supervise"]),
    ("console", &[]),
    ("edge", &["supervise"]),
    ("store", &["domain"]),
    ("app", &["store", "domain", "config"]),
    ("api", &["app", "domain", "config", "supervise", "telemetry"]),
    ("agents", &["app", "domain", "supervise", "telemetry"]),
    ("gateway", &["app", "domain", "supervise", "telemetry"]),
    ("tasks", &["app", "store", "domain", "supervise"]),
    (
        "run",
        &[
            "agents",
            "api",
            "app",
            "config",
            "console",
            "domain",
            "edge",
            "gateway",
            "ops",
            "store",
            "supervise",
            "tasks",
            "telemetry",
        ],
    ),
];

/// What each crate may depend on of ours, outside its tests.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("pki", &[]),
    ("tunnel", &["culvert-proto", "culvert-pki"]),
    ("resources", &[]),
    ("engines", &["culvert-resources"]),
    (
        "controller",
        &["culvert-proto", "culvert-pki", "culvert-tunnel", "culvert-resources", "culvert-engines"],
    ),
    ("agent", &["culvert-proto", "culvert-pki", "culvert-tunnel", "culvert-resources"]),
    ("operator", &["culvert-resources", "culvert-engines", "culvert-pki"]),
    ("runner", &["culvert-resources", "culvert-engines", "culvert-pki"]),
    ("cli", &["culvert-pki"]),
];

/// What a crate keeps out, outside its tests.
const BANNED: &[(&str, &[&str])] = &[
    ("pki", &["tokio", "sea-orm", "sqlx", "hyper", "kube"]),
    ("tunnel", &["sea-orm", "sqlx", "kube", "k8s-openapi"]),
    ("resources", &["tokio", "sea-orm", "sqlx", "hyper"]),
    ("engines", &["tokio", "sea-orm", "sqlx", "hyper"]),
    ("agent", &["sea-orm", "sqlx"]),
    ("operator", &["sea-orm", "sqlx", "object_store", "tonic"]),
    ("runner", &["sea-orm", "sqlx", "tonic"]),
    ("cli", &["sea-orm", "sqlx"]),
];

/// What the domain's source may not name.
const NOT_IN_DOMAIN: &[&str] = &["sea_orm", "tonic", "tokio", "async fn", "SystemTime::now", "now_utc"];

const MAIN_LINES: usize = 60;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The module path of a file below `src`: `app/cluster.rs` is `[app, cluster]`.
fn module_of(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source()).unwrap().with_extension("");
    let mut parts: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first names after a path's root: one, or those of a group in braces.
fn first_names(after: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = after.strip_prefix('{') else { return vec![name(after)] };
    let (mut depth, mut names, mut at_start) = (0, Vec::new(), true);
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                names.push(name(&group[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

/// Every name directly below the crate that the text refers to, by `crate::` or by enough `super::`.
fn names_below_the_crate(text: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (index, _) in text.match_indices("crate::") {
        found.extend(first_names(&text[index + "crate::".len()..]));
    }
    let mut rest = text;
    while let Some(index) = rest.find("super::") {
        rest = &rest[index..];
        let mut supers = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            rest = after;
            supers += 1;
        }
        if supers >= depth {
            found.extend(first_names(rest));
        }
    }
    found
}

#[test]
fn no_room_imports_upward() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    assert!(files.len() > 20, "found only {} files; is the path right?", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let module = module_of(file);
        let room = module.first().map_or("", String::as_str);
        if matches!(room, "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room {room} is not in the list", file.display()));
            continue;
        };
        let text = without_comments(&fs::read_to_string(file).unwrap());
        for name in names_below_the_crate(&text, module.len()) {
            let is_room = ROOMS.iter().any(|(room, _)| *room == name);
            if is_room && name != room && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: {room} may not import {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_domain_waits_for_nothing() {
    let mut files = Vec::new();
    rust_files(&source().join("domain"), &mut files);
    for file in files {
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        for banned in NOT_IN_DOMAIN {
            assert!(!text.contains(banned), "{} names {banned}", file.display());
        }
    }
}

#[test]
fn crates_depend_downward_only() {
    let mut wrong = Vec::new();
    for (name, allowed) in CRATES {
        let manifest: toml::Table =
            fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap().parse().unwrap();
        let dependencies: Vec<&String> = manifest["dependencies"].as_table().unwrap().keys().collect();
        for dependency in dependencies.iter().filter(|d| d.starts_with("culvert-")) {
            if !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} may not depend on {dependency}"));
            }
        }
        for banned in
            BANNED.iter().filter(|(crate_name, _)| crate_name == name).flat_map(|(_, banned)| *banned)
        {
            if dependencies.iter().any(|d| d.as_str() == *banned) {
                wrong.push(format!("{name} keeps {banned} out"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn main_tells_the_life_of_the_process_and_nothing_else() {
    let lines = fs::read_to_string(source().join("main.rs")).unwrap().lines().count();
    assert!(lines <= MAIN_LINES, "main.rs has {lines} lines, {MAIN_LINES} are allowed");
}

#[test]
fn imports_are_found_in_every_spelling() {
    let names = |text: &str, depth| names_below_the_crate(text, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(names("use crate::app::{App, x};", 1), ["app"]);
    assert_eq!(names("use crate::{app::{a, b::{c}}, store, domain::Id};", 1), ["app", "domain", "store"]);
    assert_eq!(names("fn f(x: crate::api::X) {}", 2), ["api"]);
    assert_eq!(names("use super::super::store::X;", 2), ["store"]);
    assert_eq!(names("use super::cluster::X;", 2), [""; 0]);
    assert_eq!(names("use super::gateway::X;", 1), ["gateway"]);
}
