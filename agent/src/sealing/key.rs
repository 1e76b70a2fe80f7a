//! The key pair to which secrets for this cluster are sealed.
use std::sync::Arc;

use culvert_pki::hpke::OpeningKey;

use crate::identity::{Keeper, StateError};

/// The key pair; made and stored when there is none yet.
///
/// # Errors
/// [`StateError`] when it cannot be made or stored.
pub async fn ensure(keeper: &Keeper) -> Result<Arc<OpeningKey>, StateError> {
    if let Some(key) = keeper.state().await.sealing {
        return Ok(key);
    }
    let fresh = OpeningKey::generate().map_err(|error| StateError::SealingKey(error.to_string()))?;
    let fresh = Arc::new(fresh);
    let state = keeper
        .update(|state| {
            // Another pod may have made one in between; two keys would fight.
            state.sealing.get_or_insert_with(|| Arc::clone(&fresh));
            Ok(())
        })
        .await?;
    let key = state.sealing.unwrap_or(fresh);
    tracing::info!(key = key.public().id(), "key for sealed credentials made");
    Ok(key)
}
