//! The API itself, for what has no command yet and for scripts.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use crate::failure::{Exit, Failure};
use crate::files;
use crate::invocation::Invocation;
use crate::output::{Format, Table, Tree};

/// The controller takes no larger body.
const BODY_LIMIT: u64 = 8 << 20;

/// Call the REST API with the session of the context
#[derive(Args)]
#[command(
    after_help = "A path without /api/ is below /api/v1. Fields make a JSON object: KEY=TEXT is text and
KEY:=JSON is any JSON value; a body is only read from a file or standard input, so that no
secret gets into the list of processes.

Examples:
  culvert api GET clusters
  culvert api GET '/api/v1/clusters?state=connected'
  culvert api POST clusters --field name=edge-1 --field 'labels:={\"site\":\"graz\"}'
  culvert api POST clusters --data @cluster.json"
)]
pub(crate) struct Api {
    /// GET, POST, PUT, PATCH or DELETE
    #[arg(value_parser = method)]
    method: Method,
    /// The path, with a query if need be
    path: String,
    /// The body: @FILE, or - for standard input
    #[arg(long, value_name = "@FILE|-", value_parser = data, conflicts_with = "fields")]
    data: Option<Data>,
    /// A field of the body
    #[arg(short, long = "field", value_name = "KEY=TEXT|KEY:=JSON", value_parser = field)]
    fields: Vec<(String, serde_json::Value)>,
}

/// Where a body comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    File(PathBuf),
    Stdin,
}

fn method(text: &str) -> Result<Method, String> {
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let upper = text.to_ascii_uppercase();
    let method = known.contains(&upper.as_str()).then(|| Method::from_bytes(upper.as_bytes()).ok()).flatten();
    method.ok_or_else(|| format!("\"{text}\" is none of {}", known.join(", ")))
}

fn data(text: &str) -> Result<Data, String> {
    match text.strip_prefix('@') {
        _ if text == "-" => Ok(Data::Stdin),
        Some("-") => Ok(Data::Stdin),
        Some(path) if !path.is_empty() => Ok(Data::File(PathBuf::from(path))),
        _ => Err("write @FILE to read a file, or - to read standard input".to_owned()),
    }
}

fn field(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=TEXT or KEY:=JSON"))?;
    let (key, value) = match key.strip_suffix(':') {
        Some(key) => {
            let value = serde_json::from_str(value).map_err(|error| format!("{key} is no JSON: {error}"))?;
            (key, value)
        }
        None => (key, serde_json::Value::String(value.to_owned())),
    };
    if key.is_empty() { Err(format!("\"{text}\" has no key")) } else { Ok((key.to_owned(), value)) }
}

pub(crate) async fn run(run: &Invocation, args: Api) -> Result<(), Failure> {
    let client = run.client().await?;
    let ask = client.ask_path(args.method.clone(), &args.path)?;
    let ask = match body(args)? {
        Some(body) => ask.raw(body),
        None => ask,
    };
    let answer = client.send(ask).await?;
    if answer.body.is_empty() {
        run.out.note(&format!("{}", answer.status));
        return Ok(());
    }
    match (Tree::from_json(&answer.body), run.out.format) {
        (Ok(tree), Format::Yaml) => run.out.data(&tree.yaml()?),
        (Ok(tree), Format::Name) => run.out.answer(&tree, &Table::default(), &names(&tree)),
        (Ok(tree), _) => run.out.data(&(tree.json()? + "\n")),
        // Not JSON: a kubeconfig, or a stream; it is shown as it came.
        (Err(_), _) => run.out.data(&String::from_utf8_lossy(&answer.body)),
    }
}

/// The names, or else the ids, of a list's items or of the one answer.
fn names(tree: &Tree) -> Vec<String> {
    let name = |item: &Tree| {
        let field = item.get("name").or_else(|| item.get("id"));
        field.and_then(Tree::text).map(str::to_owned)
    };
    match tree.get("items") {
        Some(items) => items.list().iter().filter_map(name).collect(),
        None => name(tree).into_iter().collect(),
    }
}

fn body(args: Api) -> Result<Option<Vec<u8>>, Failure> {
    let bytes = match args.data {
        Some(Data::File(path)) => {
            let text = files::read_text(&path, BODY_LIMIT).map_err(|e| Failure::file("read", &path, &e))?;
            text.ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", path.display())))?
                .into_bytes()
        }
        Some(Data::Stdin) => Invocation::stdin(BODY_LIMIT)?,
        None if args.fields.is_empty() => return Ok(None),
        None => {
            let object: serde_json::Map<_, _> = args.fields.into_iter().collect();
            serde_json::Value::Object(object).to_string().into_bytes()
        }
    };
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_text_or_json() {
        assert_eq!(field("a=1"), Ok(("a".to_owned(), "1".into())));
        assert_eq!(field("a:=1"), Ok(("a".to_owned(), 1.into())));
        assert_eq!(field("a=x=y"), Ok(("a".to_owned(), "x=y".into())));
        for text in ["a", "=1", ":=1", "a:={"] {
            assert!(field(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_is_never_an_argument() {
        assert_eq!(data("-"), Ok(Data::Stdin));
        assert_eq!(data("@x"), Ok(Data::File("x".into())));
        for text in ["", "@", "{\"code\":\"secret\"}"] {
            assert!(!data(text).unwrap_err().contains("secret"));
        }
    }

    #[test]
    fn a_method_is_one_of_five() {
        assert_eq!(method("post"), Ok(Method::POST));
        assert!(method("CONNECT").is_err() && method("G T").is_err());
    }
}
