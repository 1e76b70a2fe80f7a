//! The agent's identity: a key made here, the certificate for it, and how both are kept and renewed.
//!
//! The key never leaves the cluster; what travels is a request signed with it.
//! A new key is stored as `pending` before the request for its certificate is
//! sent, and the controller gives the same certificate for the same token and
//! key. So the agent may be killed at any step and goes on where it was: before
//! the request it makes the same request again, after it gets the same answer.
//!
//! Mistakes a newcomer could make:
//! - To use a certificate before it is stored. After a crash the agent would
//!   come back with the older one, which may be worth nothing any more.
//! - To save over what another pod saved. Every save names the version it grew
//!   from; on a conflict the change is made again on what is there now.
//! - To take the middle between the two dates of a certificate for its
//!   half-life: the first date lies in the past, by the issuer's choice.
mod folder;
mod keeper;
mod obtain;
mod secret;
mod state;

pub use keeper::Keeper;
pub(crate) use obtain::clock_ms;
pub use obtain::{ObtainError, Obtained, enrol, read_token, rejoin, renew};
pub use state::{Identity, Pending, PendingFor, State, StateError, renew_after};

use kube::Client;

use crate::config::StatePlace;

/// Where a [`State`] is kept.
#[derive(Debug)]
pub(crate) enum Store {
    /// A folder of this machine.
    Folder(folder::Folder),
    /// A Secret of the cluster.
    Secret(Box<secret::SecretStore>),
}

impl Store {
    /// Opens the place; `kube` is asked for only when it is a Secret.
    pub(crate) fn open(place: &StatePlace, kube: impl FnOnce() -> Client) -> Result<Store, StateError> {
        Ok(match place {
            StatePlace::Folder(path) => Store::Folder(folder::Folder::open(path)?),
            StatePlace::Secret(name) => Store::Secret(Box::new(secret::SecretStore::new(kube(), name))),
        })
    }

    pub(crate) async fn load(&mut self) -> Result<State, StateError> {
        match self {
            Store::Folder(folder) => folder.load(),
            Store::Secret(secret) => secret.load().await,
        }
    }

    pub(crate) async fn save(&mut self, state: &State) -> Result<(), StateError> {
        match self {
            Store::Folder(folder) => folder.save(state),
            Store::Secret(secret) => secret.save(state).await,
        }
    }

    /// What the place has and a copy of it has not; `None` when one process alone can use it.
    pub(crate) fn place(&self) -> Option<&str> {
        match self {
            Store::Folder(_) => None,
            Store::Secret(secret) => secret.uid(),
        }
    }

    /// Whether another process may have saved since the last load.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Store::Secret(_))
    }
}
