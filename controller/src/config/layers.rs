//! Laying file, environment and flags over the defaults, and reading typed values.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use super::{ConfigFault, ConfigFaults, is_host};

const DEFAULTS: &str = include_str!("../../config.default.toml");

/// Every key there is, with its value.
pub(super) struct Layers {
    values: BTreeMap<String, Value>,
    faults: Vec<ConfigFault>,
}

impl Layers {
    pub(super) fn load(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigFaults> {
        let mut layers = Self { values: BTreeMap::new(), faults: Vec::new() };
        let defaults = parse("the built-in defaults", DEFAULTS)?;
        flatten(&defaults, "", &mut |key, value| {
            layers.values.insert(key, value.clone());
        });
        if let Some(text) = file {
            layers.lay_file(&parse("the configuration file", text)?);
        }
        layers.lay_environment(environment);
        for (key, value) in flags {
            layers.lay_text(key, value);
        }
        Ok(layers)
    }

    fn lay_file(&mut self, file: &Table) {
        flatten(file, "", &mut |key, value| match self.values.get_mut(&key) {
            Some(known) if known.same_type(value) => *known = value.clone(),
            Some(known) => {
                let problem = format!("must be a {}, not a {}", kind(known), kind(value));
                self.faults.push(ConfigFault { place: key, problem });
            }
            None => {
                let problem = "there is no such key; see config.default.toml".to_owned();
                self.faults.push(ConfigFault { place: key, problem });
            }
        });
    }

    /// Variables that name no key are let be: other programs and Kubernetes put
    /// theirs with the same prefix.
    fn lay_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let by_variable: BTreeMap<_, _> =
            self.values.keys().map(|key| (variable(key), key.clone())).collect();
        for (name, value) in environment {
            if let Some(key) = by_variable.get(&name) {
                self.lay_text(key, &value);
            }
        }
    }

    fn lay_text(&mut self, key: &str, text: &str) {
        let Some(known) = self.values.get_mut(key) else {
            self.faults
                .push(ConfigFault { place: key.to_owned(), problem: "there is no such key".to_owned() });
            return;
        };
        let parsed = match known {
            Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
            Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
            Value::Array(_) => Some(list(text)),
            _ => Some(Value::String(text.to_owned())),
        };
        match parsed {
            Some(value) => *known = value,
            None => {
                let problem = format!("must be a {}", kind(known));
                self.faults.push(ConfigFault { place: key.to_owned(), problem });
            }
        }
    }
}

fn parse(what: &str, text: &str) -> Result<Table, ConfigFaults> {
    text.parse::<Table>().map_err(|error| {
        let line =
            error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
        let problem = format!("line {line}: {}", error.message());
        ConfigFaults(vec![ConfigFault { place: what.to_owned(), problem }])
    })
}

fn flatten(table: &Table, prefix: &str, take: &mut impl FnMut(String, &Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(inner, &key, take),
            other => take(key, other),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "whole number",
        Value::Array(_) => "list",
        Value::Boolean(_) => "true or false",
        Value::Table(_) => "table",
        _ => "text",
    }
}

fn variable(key: &str) -> String {
    format!("CULVERT_CONTROLLER_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn list(text: &str) -> Value {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// Turns values into types and keeps every fault it meets. A method gives `None`
/// only after it noted a fault.
pub(super) struct Reader {
    layers: Layers,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self { layers }
    }

    pub(super) fn into_faults(self) -> Vec<ConfigFault> {
        self.layers.faults
    }

    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let already = self.layers.faults.iter().any(|f| f.place == key);
        if !already {
            self.layers.faults.push(ConfigFault { place: key.to_owned(), problem: problem.into() });
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.layers.values.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => {
                self.fault(key, "must be a text");
                None
            }
        }
    }

    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = self.text(key).and_then(|text| parse(&text));
        if parsed.is_none() {
            self.fault(key, format!("must be {wanted}"));
        }
        parsed
    }

    /// `Some(None)` when the text is empty.
    pub(super) fn optional_parsed<T>(
        &mut self,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.text(key)?.is_empty() { Some(None) } else { self.parsed(key, wanted, parse).map(Some) }
    }

    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        self.parsed(key, "an address and a port, as 127.0.0.1:8443 or [::]:443", |t| t.parse().ok())
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.parsed(key, "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
    }

    pub(super) fn optional_path(&mut self, key: &str) -> Option<Option<PathBuf>> {
        self.optional_parsed(key, "a path", |text| Some(PathBuf::from(text)))
    }

    pub(super) fn count(&mut self, key: &str, least: usize, most: usize) -> Option<usize> {
        let found = match self.layers.values.get(key) {
            Some(Value::Integer(number)) => {
                usize::try_from(*number).ok().filter(|n| (least..=most).contains(n))
            }
            _ => None,
        };
        if found.is_none() {
            self.fault(key, format!("must be a whole number from {least} to {most}"));
        }
        found
    }

    pub(super) fn seconds(&mut self, key: &str, least: usize, most: usize) -> Option<Duration> {
        let seconds = self.count(key, least, most)?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }

    /// Names and addresses without ports.
    pub(super) fn host_list(&mut self, key: &str) -> Option<Vec<String>> {
        let items: Option<Vec<String>> = match self.layers.values.get(key) {
            Some(Value::Array(items)) => items.iter().map(|i| i.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let good = items.filter(|all| all.iter().all(|i| i.parse::<IpAddr>().is_ok() || is_host(i)));
        if good.is_none() {
            self.fault(key, "must be a list of DNS names and addresses, without ports");
        }
        good
    }
}
