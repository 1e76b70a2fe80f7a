//! Opens the credentials of backup targets that the controller sealed to this cluster's agent.
//!
//! The key pair is made here, lies in the agent's state beside its identity, and its public half
//! goes up with the facts. What is sealed to it lies in a BackupTarget; the agent opens it into
//! the one Secret that the target names, and says in the target's status which generation that
//! is. So the credentials are in clear text in the controller's memory and in the cluster's
//! Secret, and nowhere on the way.
//!
//! Mistakes a newcomer could make:
//! - To believe a ciphertext because it opens. Whoever knows the public key can seal; what may be
//!   asked is bound by who may write BackupTargets, and the agent writes only a Secret that is not
//!   there yet, or that it made itself for the same target.
//! - To apply an older generation again. Credentials that were rotated because they leaked would
//!   come back with the object of last week.
//! - To let a deleted target leave its Secret behind while the agent is away: the Secret belongs
//!   to the target, so the cluster itself takes it along.
mod credentials;
mod key;
mod opener;

pub use key::ensure;
pub use opener::{Opener, Periods};
