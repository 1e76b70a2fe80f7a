//! The state in memory and its place, kept in step: a change is visible only once it is stored.
use tokio::sync::Mutex;

use super::Store;
use super::state::{State, StateError};

/// Times a change is tried again when another process saved in between.
const ATTEMPTS: usize = 5;

/// The state of this process, and where it is kept.
#[derive(Debug)]
pub struct Keeper {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    state: State,
}

impl Inner {
    /// Takes over what is stored. When the place was emptied under a running
    /// agent, its identity is kept and will be stored again with the next
    /// change; to forget it, the agent is stopped first.
    async fn reload(&mut self) -> Result<(), StateError> {
        let mut stored = self.store.load().await?;
        if stored.identity.is_none() && self.state.identity.is_some() {
            tracing::warn!("stored identity is gone, keeping the one in memory");
            stored.identity = self.state.identity.take();
        }
        if stored.sealing.is_none() {
            stored.sealing = self.state.sealing.take();
        }
        self.state = stored;
        Ok(())
    }
}

impl Keeper {
    /// Reads what is stored.
    ///
    /// # Errors
    /// [`StateError`] and the store, to try again with; a damaged state is never
    /// replaced by an empty one.
    pub(crate) async fn open(mut store: Store) -> Result<Keeper, (Store, StateError)> {
        match store.load().await {
            Ok(state) => Ok(Keeper { inner: Mutex::new(Inner { store, state }) }),
            Err(error) => Err((store, error)),
        }
    }

    /// The state as last stored or read by this process.
    pub async fn state(&self) -> State {
        self.inner.lock().await.state.clone()
    }

    /// The state as it is now, should another pod have changed it.
    ///
    /// # Errors
    /// [`StateError`]; the state in memory then stays as it was.
    pub async fn refreshed(&self) -> Result<State, StateError> {
        let mut inner = self.inner.lock().await;
        if inner.store.is_shared() {
            inner.reload().await?;
        }
        Ok(inner.state.clone())
    }

    /// Names the place where the state is, for those who share it; empty when nobody can.
    pub async fn place(&self) -> Vec<u8> {
        self.inner.lock().await.store.place().unwrap_or_default().as_bytes().to_vec()
    }

    /// Makes a change and stores it. When another process saved in between, the
    /// change is made again on top of what that one saved; so `change` must
    /// look at the state it is given.
    ///
    /// # Errors
    /// [`StateError`]; nothing has changed then.
    pub async fn update(
        &self,
        change: impl Fn(&mut State) -> Result<(), StateError>,
    ) -> Result<State, StateError> {
        let mut inner = self.inner.lock().await;
        for _ in 0..ATTEMPTS {
            let mut next = inner.state.clone();
            change(&mut next)?;
            match inner.store.save(&next).await {
                Ok(()) => {
                    inner.state = next.clone();
                    return Ok(next);
                }
                Err(StateError::Conflict) => inner.reload().await?,
                Err(error) => return Err(error),
            }
        }
        Err(StateError::Conflict)
    }
}
