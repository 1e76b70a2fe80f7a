//! Random bytes from the operating system; the only source of chance here.

use thiserror::Error;

/// The operating system gave no random bytes. Nothing secret can be made then,
/// so every caller stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|_| NoRandomness)?;
    Ok(out)
}
