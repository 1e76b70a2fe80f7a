//! The DataPlane as the operator's chart gives it: a file, written to the cluster at the start.
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use culvert_resources::{DataPlane, DataPlaneSpec};
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio_util::sync::CancellationToken;

use super::NAME;
use crate::reconcile::Work;

/// Pause between two tries; the definitions may come a moment after the operator.
const PAUSE: Duration = Duration::from_secs(2);

/// Reads the file. Unknown keys are refused: a mistyped one would silently leave an engine out.
///
/// # Errors
/// When the file cannot be read or does not hold a spec.
pub(crate) fn read(path: &Path) -> anyhow::Result<DataPlaneSpec> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} does not hold the spec of a DataPlane", path.display()))
}

fn parse(text: &str) -> anyhow::Result<DataPlaneSpec> {
    let given: serde_json::Value = serde_saphyr::from_str(text)?;
    let spec: DataPlaneSpec = serde_json::from_value(given.clone())?;
    let known = serde_json::to_value(&spec)?;
    let keys = given.as_object().context("it is no map")?.keys();
    for key in keys {
        anyhow::ensure!(
            known.get(key).is_some() || given.get(key).is_none_or(serde_json::Value::is_null),
            "unknown key {key}"
        );
    }
    Ok(spec)
}

/// Writes what was given, if anything was, and tries until that succeeds.
pub(super) async fn write(work: Work, stop: CancellationToken) {
    let Some(spec) = work.world().data_plane() else { return };
    let planes = Api::<DataPlane>::all(work.world().client());
    let document = DataPlane::new(NAME, spec.clone());
    let parameters = PatchParams::apply(culvert_resources::meta::manager::DATA_PLANE).force();
    loop {
        match planes.patch(NAME, &parameters, &Patch::Apply(&document)).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(error = %error, "the data plane cannot be written yet"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_file_is_read() {
        let text = "runnerImage: \"r:1\"\nengines: {\"postgresql\":{\"images\":{\"15.20\":\"p\"}}}\nstorageClass: fast\n";
        let spec = parse(text).unwrap();
        assert_eq!(spec.engines["postgresql"].images["15.20"], "p");
        assert_eq!(spec.storage_class.as_deref(), Some("fast"));
    }

    #[test]
    fn a_mistyped_key_is_refused() {
        assert!(parse("runerImage: r").unwrap_err().to_string().contains("runerImage"));
        assert!(parse("[]").is_err());
        assert!(parse("engines: 3").is_err());
    }
}
