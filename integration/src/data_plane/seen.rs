//! Waiting for what objects say, and telling what was there when they did not.

use std::fmt::Debug;
use std::time::Duration;

use ::kube::core::NamespaceResourceScope;
use ::kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{DataPlane, OPERATOR};
use crate::wait;

/// The pods of data services.
const OURS: &str = "data.culvert.dev/service";

impl DataPlane {
    /// The objects of one kind in a namespace.
    pub fn objects<K>(&self, namespace: &str) -> anyhow::Result<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Ok(Api::namespaced(self.client()?, namespace))
    }

    /// Waits until `look` finds in an object what it looks for. When it does not, the error
    /// tells the last state, and what happened in the namespace.
    pub async fn until<K, T>(
        &self,
        namespace: &str,
        name: &str,
        limit: Duration,
        look: impl Fn(&K) -> anyhow::Result<T>,
    ) -> anyhow::Result<T>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let objects = self.objects::<K>(namespace)?;
        let seen = wait::until(limit, || async { look(&objects.get(name).await?) }).await;
        self.explained(seen, namespace).await
    }

    /// Waits until an object is gone.
    pub async fn gone<K>(&self, namespace: &str, name: &str, limit: Duration) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let objects = self.objects::<K>(namespace)?;
        let look = || async {
            let left = objects.get_opt(name).await?;
            anyhow::ensure!(left.is_none(), "still there: {left:?}");
            Ok(())
        };
        let seen = wait::until(limit, look).await;
        self.explained(seen, namespace).await
    }

    /// Adds to an error what happened in a namespace and what the operator said.
    pub async fn explained<T>(&self, result: anyhow::Result<T>, namespace: &str) -> anyhow::Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(self.report(namespace).await)),
        }
    }

    async fn report(&self, namespace: &str) -> String {
        let mut report = String::new();
        let questions: [(&str, &[&str]); 4] = [
            (namespace, &["get", "culvert,statefulsets,pods,pvc,jobs", "-o", "wide"]),
            (namespace, &["get", "events", "--sort-by=.lastTimestamp"]),
            (namespace, &["logs", "--selector", OURS, "--all-containers", "--prefix", "--tail=40"]),
            (OPERATOR, &["logs", "deployment/culvert-operator", "--tail=60"]),
        ];
        for (place, question) in questions {
            let asked = [question, &["-n", place]].concat();
            let said = self.cluster().get(&asked).await.unwrap_or_else(|error| format!("{error:#}"));
            report.push_str(&format!("--- kubectl {}\n{said}\n", asked.join(" ")));
        }
        report
    }
}
