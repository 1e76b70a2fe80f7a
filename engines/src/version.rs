//! Versions of engines: numbers with dots, and which of the available ones is meant.

use std::fmt;

/// A version: up to three numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Vec<u32>);

impl Version {
    /// Reads `17` or `17.12` or `8.1.1`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            |part: &&str| !part.is_empty() && part.len() <= 6 && part.bytes().all(|b| b.is_ascii_digit());
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() > 3 || !parts.iter().all(plain) {
            return None;
        }
        Some(Self(parts.iter().filter_map(|part| part.parse().ok()).collect()))
    }

    /// Whether `self` is `wanted` or a release of it: `17.12` of `17`.
    #[must_use]
    pub fn is_of(&self, wanted: &Self) -> bool {
        self.0.starts_with(&wanted.0)
    }

    /// Whether the first `numbers` numbers are the same, as far as both have them.
    pub(crate) fn shares(&self, other: &Self, numbers: usize) -> bool {
        self.0.iter().zip(&other.0).take(numbers).all(|(a, b)| a == b)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// The newest of `available` that is `wanted` or a release of it.
pub(crate) fn newest(wanted: &Version, available: &[String]) -> Option<Version> {
    available.iter().filter_map(|text| Version::parse(text)).filter(|version| version.is_of(wanted)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(version("17.12") > version("17.9"));
        assert!(version("17.12").is_of(&version("17")));
        assert!(
            !version("17.12").is_of(&version("17.1")),
            "a prefix of the text is not a prefix of the version"
        );
    }

    #[test]
    fn nonsense_is_no_version() {
        for text in ["", ".", "17.", "v17", "17.1.2.3", "-1", "17 ", "１７", "99999999"] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_newest_available_release_is_meant() {
        let available = ["15.20", "17.9", "17.12", "broken"].map(str::to_owned);
        assert_eq!(newest(&version("17"), &available), Some(version("17.12")));
        assert_eq!(newest(&version("17.9"), &available), Some(version("17.9")));
        assert_eq!(newest(&version("16"), &available), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(parts in prop::collection::vec(0_u32..999_999, 1..=3)) {
            let text = parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
            prop_assert_eq!(version(&text).to_string(), text);
        }
    }
}
