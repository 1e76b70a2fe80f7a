//! Where PostgreSQL's programs are: told, or where Debian puts them, or in the PATH.
use std::path::PathBuf;

use crate::engine::Situation;

/// The folder with the programs of the version that shall run.
#[must_use]
pub(super) fn programs(now: &Situation) -> PathBuf {
    if let Some(told) = &now.folders.engine_bin {
        return told.clone();
    }
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{}/bin", major(&now.config.version)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(debian.clone()).chain(std::env::split_paths(&path));
    let mut there = folders.filter(|folder| folder.join("postgres").is_file());
    there.next().unwrap_or(debian)
}

/// The major version: 17 of `17.2`; 0 of what is none.
#[must_use]
pub(super) fn major(version: &str) -> u32 {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn the_major_version_is_what_stands_before_the_point() {
        assert_eq!((major("17.2"), major("15"), major("15beta1"), major("x")), (17, 15, 15, 0));
    }
}
