//! What the guides tell people to write or run is right: examples are read by the
//! program they are for, commands are run, links lead somewhere.

// What serves a test fails as a test does.

use std::path::{Path, PathBuf};
use std::process::Command;

use culvert_agent::policy::Policy;
use culvert_controller::config::Config;
use culvert_pki::seal::FileKek;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a page that are marked with `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).map(str::to_owned).collect()
}

#[test]
fn examples_of_the_agents_policy_are_policies() {
    let examples = blocks(&read("docs/agent-policy.md"), "yaml");
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        Policy::parse(&example).unwrap_or_else(|error| panic!("{error}:\n{example}"));
    }
}

#[test]
fn the_policy_in_the_charts_comment_is_a_policy() {
    let values = read("helm/agent/values.yaml");
    let comment: Vec<&str> = values
        .lines()
        .skip_while(|line| *line != "#   policy:")
        .skip(1)
        .map_while(|line| line.strip_prefix("#     "))
        .collect();
    assert!(comment.len() > 10, "the example is gone: {comment:?}");
    Policy::parse(&comment.join("\n")).expect("the example is a policy");
}

/// What a chart's golden renders have under `key` of their ConfigMap.
fn rendered(chart: &str, key: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(workspace().join("helm").join(chart).join("golden")).expect("golden/") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().ends_with(".values.yaml") {
            continue;
        }
        let render = std::fs::read_to_string(&path).expect("a render");
        let document =
            render.split("\n---\n").find(|text| text.contains("\nkind: ConfigMap\n")).expect("a ConfigMap");
        let object: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        found.push((path, object["data"][key].as_str().expect("a file").to_owned()));
    }
    found
}

#[test]
fn policies_that_the_chart_renders_are_policies() {
    let mut sentences = Vec::new();
    for (path, text) in rendered("agent", "policy.yaml") {
        let policy =
            Policy::parse(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", path.display()));
        sentences.push(policy.sentence());
    }
    assert!(sentences.iter().any(String::is_empty), "none allows all: {sentences:?}");
    assert!(
        sentences.iter().any(|sentence| sentence.starts_with("read only; only what 1 rule")),
        "{sentences:?}"
    );
}

#[test]
fn configurations_that_the_chart_renders_are_configurations() {
    let files = rendered("controller", "controller.toml");
    assert!(files.len() >= 2);
    for (path, text) in files {
        let config =
            Config::load(Some(&text), [], &[]).unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()));
        assert_eq!(config.listen.port(), 8443);
        assert!(!config.ops_listen.ip().is_loopback(), "probes come from outside the pod");
        assert!(
            config.public_names.contains(&config.public_address().host().to_owned()),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_guides_commands_make_a_key() {
    let page = read("docs/operators-guide.md");
    let script =
        blocks(&page, "sh").into_iter().find(|block| block.contains("key=cvk1.")).expect("the commands");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output =
        Command::new("bash").args(["-euc", &script]).current_dir(folder.path()).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.path().join("kek")).expect("a key file");
    text.parse::<FileKek>().expect("the file is a key");
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in std::fs::read_dir(workspace().join("docs")).expect("docs/") {
        pages.push(format!("docs/{}", entry.expect("an entry").file_name().to_string_lossy()));
    }
    let mut dead = Vec::new();
    for page in pages.iter().filter(|page| page.ends_with(".md")) {
        for link in links(&read(page)) {
            if !leads_somewhere(page, &link) {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

/// Targets of `[text](target)` that stay within the project.
fn links(page: &str) -> Vec<String> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.contains(' '))
        .map(str::to_owned)
        .collect()
}

fn leads_somewhere(page: &str, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let target = if file.is_empty() { PathBuf::from(page) } else { folder.join(file) };
    let path = workspace().join(&target);
    match anchor {
        None => path.exists(),
        Some(anchor) => std::fs::read_to_string(path).is_ok_and(|text| {
            text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
        }),
    }
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
