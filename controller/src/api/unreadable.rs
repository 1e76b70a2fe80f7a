//! Reads bodies and queries; what is wrong with one is told with its field, as well as serde tells it.

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::status::Problem;
use crate::domain::Fault;

/// A JSON body.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        wrong(&path, error.inner())
    })?;
    json.end().map_err(|error| wrong("", &error))?;
    Ok(value)
}

/// The query of a request.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let query: Query<T> = Query::try_from_uri(uri).map_err(|error| {
        let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Problem::invalid(vec![fault("", &text)])
    })?;
    Ok(query.0)
}

fn wrong(path: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    match error.classify() {
        Category::Data => Problem::invalid(vec![fault(path, &text)]),
        _ => Problem::malformed(format!("the body is not JSON: {text}")),
    }
}

/// `path` leads to what could not be read; a field that is not known, or not there, is named in the message alone,
/// in backticks.
fn fault(path: &str, text: &str) -> Fault {
    let path = if path == "." { "" } else { path };
    let detail = text.split(" at line ").next().unwrap_or(text).to_owned();
    let codes =
        [("unknown field", "unknown_field"), ("missing field", "missing"), ("duplicate field", "duplicate")];
    let Some((_, code)) = codes.into_iter().find(|(begin, _)| text.starts_with(begin)) else {
        return Fault::new(path, "invalid", detail);
    };
    let name = text.split('`').nth(1).unwrap_or_default();
    // Some of these are found at the field itself, and others at what holds it.
    let held = path.strip_suffix(name).map_or(path, |before| before.trim_end_matches('.'));
    let field = if held.is_empty() { name.to_owned() } else { format!("{held}.{name}") };
    Fault::new(field, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it parses matters here")]
    struct Asked {
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "lowercase")]
    #[allow(dead_code, reason = "only whether it parses matters here")]
    struct Inner {
        method: Option<Choice>,
        size: u8,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        One,
    }

    #[rstest]
    #[case(r#"{"nam":1}"#, "nam", "unknown_field")]
    #[case("{}", "name", "missing")]
    #[case(r#"{"name":"a","name":"b"}"#, "name", "duplicate")]
    #[case(r#"{"name":7}"#, "name", "invalid")]
    #[case(r#"{"name":"a","inner":[{"size":1},{"size":1,"method":"two"}]}"#, "inner[1].method", "invalid")]
    #[case(r#"{"name":"a","inner":[{"size":1,"sise":2}]}"#, "inner[0].sise", "unknown_field")]
    #[case(r#"{"name":"a","inner":[{}]}"#, "inner[0].size", "missing")]
    #[case(r#"{"name":"a","inner":[{"size":300}]}"#, "inner[0].size", "invalid")]
    #[case("7", "", "invalid")]
    fn a_fault_names_its_field(#[case] text: &str, #[case] field: &str, #[case] code: &str) {
        let mut json = serde_json::Deserializer::from_str(text);
        let error = serde_path_to_error::deserialize::<_, Asked>(&mut json).unwrap_err();
        let fault = fault(&error.path().to_string(), &error.inner().to_string());
        assert_eq!((fault.field.as_str(), &*fault.code), (field, code));
        assert!(!fault.detail.contains(" at line "), "{}", fault.detail);
    }

    #[test]
    fn what_follows_a_body_is_refused() {
        assert!(body::<Asked>(br#"{"name":"a"}"#).is_ok());
        assert!(body::<Asked>(br#"{"name":"a"} {}"#).is_err());
    }
}
