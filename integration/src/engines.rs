//! The images of the engines, as `images/engines/build` makes them from Debian's packages.
//!
//! Which minor versions there are is the mirror's choice: a story asks here, and never
//! names one itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::kube::Image;
use crate::process;

/// An image that holds one engine.
#[derive(Clone, Debug)]
pub struct EngineImage {
    /// `postgresql` or `valkey`.
    pub engine: String,
    /// The exact version that is in it, such as `17.12`.
    pub version: String,
    /// The image itself, to load and to name.
    pub image: Image,
}

impl EngineImage {
    /// `REPOSITORY@DIGEST`, as pods and a DataPlane name it.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.image.repository, self.image.digest)
    }

    /// Unpacks it into `folder`, and returns a folder in which its programs can be started on this machine, whatever
    /// libraries that has.
    pub async fn programs(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let script = "mkdir -p archive root bin && tar xf \"$1\" -C archive
            for layer in archive/blobs/sha256/*; do tar tf $layer >/dev/null 2>&1 && tar xf $layer -C root; done
            loader=$PWD/$(find root/usr -name 'ld-linux-*.so.*' | head -1)
            for program in root/usr/bin/valkey-* root/usr/lib/postgresql/*/bin/*; do
                [ -f $program ] || continue
                printf '#!/bin/sh\\nexec %s --library-path %s %s \"$@\"\\n' $loader ${loader%/*} $PWD/$program >bin/${program##*/}
            done; chmod +x bin/*";
        let mut command = Command::new("bash");
        command.args(["-euc", script, "unpack"]).arg(&self.image.archive).current_dir(folder);
        process::run(command).await?;
        Ok(folder.join("bin"))
    }
}

/// All of them, oldest version of an engine first; makes them when this machine has none yet.
pub async fn images() -> anyhow::Result<&'static [EngineImage]> {
    static IMAGES: OnceCell<Vec<EngineImage>> = OnceCell::const_new();
    Ok(IMAGES.get_or_try_init(build).await?)
}

/// Those of one engine's major version, oldest first.
pub async fn of_major(engine: &str, major: &str) -> anyhow::Result<Vec<&'static EngineImage>> {
    let of_it = |image: &&EngineImage| {
        image.engine == engine && image.version.split('.').next().is_some_and(|first| first == major)
    };
    let found: Vec<_> = images().await?.iter().filter(of_it).collect();
    found.first().with_context(|| format!("there is no image of {engine} {major}"))?;
    Ok(found)
}

async fn build() -> anyhow::Result<Vec<EngineImage>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/engines/build");
    let folder = PathBuf::from(process::run(Command::new(script)).await?.trim_end());
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json"))?)?;
    let images = manifest["images"].as_array().context("a manifest without images")?;
    images.iter().map(|entry| read(entry, &folder)).collect()
}

fn read(entry: &Value, folder: &Path) -> anyhow::Result<EngineImage> {
    let text = |name: &str| {
        let text = entry[name].as_str().with_context(|| format!("no {name} in {entry}"))?;
        anyhow::Ok(text.to_owned())
    };
    let name = text("image")?;
    let (repository, tag) = name.rsplit_once(':').with_context(|| format!("{name} has no tag"))?;
    let image = Image {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: text("digest")?,
        archive: folder.join(text("archive")?),
    };
    Ok(EngineImage { engine: text("engine")?, version: text("version")?, image })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_majors_of_postgresql_and_a_second_engine_are_there() {
        let newest = of_major("postgresql", "17").await.unwrap();
        let older = of_major("postgresql", "15").await.unwrap();
        let valkey = of_major("valkey", "8").await.unwrap();
        for image in newest.iter().chain(&older).chain(&valkey) {
            assert_eq!(image.version, image.image.tag);
            assert!(image.image.archive.is_file(), "{}", image.image.archive.display());
            assert!(image.reference().contains("@sha256:"), "{}", image.reference());
        }
    }
}
