//! The state in a Secret: every save names the version it grew from, so two pods cannot trample each other.
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::state::{State, StateError};
use crate::config::SecretName;

const KEY: &str = "identity.json";

/// One named Secret. Of it only the one key is read and written; labels and
/// other keys stay as they are.
pub(crate) struct SecretStore {
    api: Api<Secret>,
    name: SecretName,
    /// As it was when last read or written; `None` when there is none yet.
    seen: Option<Secret>,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SecretStore {
    pub(super) fn new(client: Client, name: &SecretName) -> SecretStore {
        SecretStore { api: Api::namespaced(client, &name.namespace), name: name.clone(), seen: None }
    }

    pub(super) async fn load(&mut self) -> Result<State, StateError> {
        self.seen = self.api.get_opt(&self.name.name).await.map_err(|error| self.error("read", &error))?;
        let data = self.seen.as_ref().and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(KEY));
        // A chart may make the Secret empty, so that the agent need not create one.
        data.map_or_else(|| Ok(State::default()), |text| State::parse(&text.0))
    }

    pub(super) async fn save(&mut self, state: &State) -> Result<(), StateError> {
        let text = ByteString(state.to_text()?.to_vec());
        let saved = match self.seen.clone() {
            Some(mut secret) => {
                secret.data.get_or_insert_default().insert(KEY.to_owned(), text);
                self.api.replace(&self.name.name, &PostParams::default(), &secret).await
            }
            None => self.api.create(&PostParams::default(), &self.fresh(text)).await,
        };
        self.seen = Some(saved.map_err(|error| self.error("written", &error))?);
        Ok(())
    }

    fn fresh(&self, text: ByteString) -> Secret {
        let labels =
            BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "culvert-agent".to_owned())]);
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.name.clone()),
                namespace: Some(self.name.namespace.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
            ..Secret::default()
        }
    }

    fn error(&self, what: &'static str, error: &kube::Error) -> StateError {
        match error {
            // Created, changed or deleted by another since it was read.
            kube::Error::Api(status) if status.code == 409 => StateError::Conflict,
            kube::Error::Api(status) if status.code == 404 && what == "written" && self.seen.is_some() => {
                StateError::Conflict
            }
            other => StateError::Kubernetes {
                name: self.name.to_string(),
                what,
                reason: crate::causes::chain(other),
            },
        }
    }
}
