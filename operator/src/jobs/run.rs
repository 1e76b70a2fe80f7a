//! Makes, watches and ends Jobs.
use culvert_resources::DataPlane;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

use super::access;
use super::build::Task;
use super::outcome::{Outcome, judge};
use super::reach::Plane;
use crate::reconcile::{Error, Work, owner};

/// Label of the pods of a Job.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// What came of the wish to have a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is there.
    There,
    /// Its namespace is being deleted and takes nothing new.
    NamespaceEnds,
}

impl Work {
    /// Sees that a Job and its file exist. A Job that is there is left as it is.
    pub(crate) async fn keep_job(&self, task: &Task) -> Result<Kept, Error> {
        let jobs: Api<Job> = self.api(&task.namespace);
        let job = match self.find::<Job>(&task.namespace, &task.name).await? {
            Some(job) => job,
            None => {
                self.give_access(&task.namespace).await?;
                match jobs.create(&self.posting(), &task.job()).await {
                    Ok(job) => job,
                    Err(error) if namespace_ends(&error) => return Ok(Kept::NamespaceEnds),
                    // Made by a process of ours that believed itself the leader: the next round finds it.
                    Err(kube::Error::Api(answer)) if answer.code == 409 => return Ok(Kept::There),
                    Err(error) => return Err(Error::kube(format!("creating Job {}", task.name), error)),
                }
            }
        };
        let file = task.config_map(owner(&job)).map_err(Error::making)?;
        match self.apply(&file).await {
            Ok(_) => Ok(Kept::There),
            Err(Error::Kube { source, .. }) if namespace_ends(&source) => Ok(Kept::NamespaceEnds),
            Err(error) => Err(error),
        }
    }

    /// Gives the Jobs of a namespace their account.
    pub(crate) async fn give_access(&self, namespace: &str) -> Result<(), Error> {
        let result = async {
            self.apply(&access::account(namespace)).await?;
            self.apply(&access::role(namespace)).await?;
            self.apply(&access::binding(namespace)).await
        };
        match result.await {
            Ok(_) => Ok(()),
            // Said by whoever makes the Job, which the namespace refuses as well.
            Err(Error::Kube { source, .. }) if namespace_ends(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What became of a Job.
    pub(crate) async fn look_at_job(&self, namespace: &str, name: &str) -> Result<Outcome, Error> {
        let Some(job) = self.find::<Job>(namespace, name).await? else { return Ok(Outcome::Absent) };
        let pods: Vec<Pod> = self.list(namespace, JOB_NAME, name).await?;
        let mut events = Vec::new();
        if pods.is_empty() {
            events.extend(self.warnings(namespace, job.uid().as_deref()).await?);
        }
        for pod in pods.iter().filter(|pod| pending(pod)) {
            events.extend(self.warnings(namespace, pod.uid().as_deref()).await?);
        }
        Ok(judge(Some(&job), &pods, &events))
    }

    /// Deletes a Job with its pods; true once nothing of it is left.
    pub(crate) async fn end_job(&self, namespace: &str, name: &str) -> Result<bool, Error> {
        if let Some(job) = self.find::<Job>(namespace, name).await? {
            if job.metadata.deletion_timestamp.is_none() {
                self.delete(&job, DeleteParams::background()).await?;
            }
            return Ok(false);
        }
        let pods: Vec<Pod> = self.list(namespace, JOB_NAME, name).await?;
        Ok(pods.is_empty())
    }

    /// What Jobs need to know of the cluster.
    pub(crate) async fn plane(&self) -> Result<Plane, Error> {
        let planes: Api<DataPlane> = Api::all(self.world().client());
        let plane = planes.get_opt("default").await;
        plane
            .map(|plane| Plane::of(plane.as_ref()))
            .map_err(|error| Error::kube("reading DataPlane default", error))
    }

    /// The warnings about an object.
    async fn warnings(&self, namespace: &str, uid: Option<&str>) -> Result<Vec<Event>, Error> {
        let Some(uid) = uid else { return Ok(Vec::new()) };
        let selector = format!("involvedObject.uid={uid},type=Warning");
        let events: Api<Event> = self.api(namespace);
        let list = events.list(&ListParams::default().fields(&selector).limit(100)).await;
        list.map(|list| list.items).map_err(|error| Error::kube("listing events", error))
    }
}

fn pending(pod: &Pod) -> bool {
    pod.status.as_ref().is_none_or(|status| status.phase.as_deref() == Some("Pending"))
}

/// Whether the API server refused something because its namespace is being deleted.
pub(crate) fn namespace_ends(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
