//! Acting inside a customer's cluster: a Kubernetes client whose wire is the tunnel.
//!
//! The control plane acts there under a name of its own, with the rights that the cluster's
//! owner gave that name. What goes wrong is sorted by what it means for whoever waits: nobody
//! can be asked now, it may pass, or it never will.

use std::collections::HashMap;
use std::time::Duration;

use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{CallError, CallOptions, FailureCode};
use kube::core::Status;

use super::{App, Error};
use crate::domain::{Caller, ClusterId, ClusterRef, Failure, OrgId, RequestId};

/// How long a cluster has for an answer. Below the time of a turn, so that one that does not
/// answer is told apart from one that was cut off.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an agent may be on its way back.
const RETURN: Duration = Duration::from_secs(1);

/// Why something in a cluster was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The cluster cannot be asked now; it is locked, not enrolled or not connected.
    #[error("{0}")]
    Away(String),
    /// It may pass.
    #[error("{0}")]
    Passing(String),
    /// Fields are held by somebody else.
    #[error("{0}")]
    Contested(String),
    /// It never will.
    #[error("{}", .0.message)]
    Never(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Denied { reason, .. } | Error::Conflict { reason, .. } => Self::Away(reason),
            Error::NotFound(_) => Self::Never(Failure::new(
                "cluster_gone",
                "the cluster's record was deleted",
                "make the data service anew in another cluster",
            )),
            other => Self::Passing(other.to_string()),
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away(reason) => Self::Away {
                code: "cluster_away",
                reason,
                next: "wait until the cluster is connected, and try again".to_owned(),
            },
            Trouble::Passing(reason) => Self::Away {
                code: "cluster_troubled",
                reason: format!("the cluster did not do it: {reason}"),
                next: "try again soon".to_owned(),
            },
            Trouble::Contested(reason) => Self::refused(
                "hand_edited",
                reason,
                "look at the difference, then adopt it or send it by force",
            ),
            Trouble::Never(failure) => Self::Refused {
                code: "cluster_refused",
                reason: failure.message,
                next: failure.next,
                details: None,
            },
        }
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => refusal(status),
            kube::Error::Service(source) => match source.downcast_ref::<CallError>() {
                Some(error) => unreached(error),
                None => Self::Passing(error.to_string()),
            },
            other => Self::Passing(other.to_string()),
        }
    }
}

/// What a tunnel's failure means.
fn unreached(error: &CallError) -> Trouble {
    match error {
        CallError::NotConnected { .. } => Trouble::Away("the cluster is disconnected".to_owned()),
        CallError::Cut(refusal) => Trouble::Away(format!("the cluster was cut off: {}", refusal.message)),
        CallError::Failure(failure) if failure.code == FailureCode::Paused => {
            Trouble::Away(failure.message.clone())
        }
        CallError::Failure(failure) if failure.code == FailureCode::Denied => Trouble::Never(Failure::new(
            "denied_by_local_policy",
            failure.message.clone(),
            "ask the cluster's owner to allow culvert:controller in the agent's policy, then retry",
        )),
        other => Trouble::Passing(other.to_string()),
    }
}

/// What an API server's refusal means.
fn refusal(status: &Status) -> Trouble {
    let said = &status.message;
    let never = |code, next| Trouble::Never(Failure::new(code, said.clone(), next));
    match status.code {
        400 | 413 | 422 => never("rejected_by_cluster", "change what the message names, then try again"),
        403 if said.contains("is being terminated") => Trouble::Passing(said.clone()),
        403 if said.contains("exceeded quota") => never(
            "cluster_quota",
            "ask the cluster's owner to raise the namespace's ResourceQuota, then retry",
        ),
        403 if said.contains("cannot ") && said.contains("User ") => never(
            "no_rights",
            "ask the cluster's owner to grant it to the group culvert:controllers, then retry",
        ),
        403 => never("denied_by_cluster", "ask the cluster's owner about the policy that the message names"),
        404 => Trouble::Passing(format!(
            "the cluster does not know this yet; is the operator installed? ({said})"
        )),
        409 => Trouble::Contested(said.clone()),
        _ => Trouble::Passing(said.clone()),
    }
}

impl App {
    /// A client for a cluster of `org`, acting as the control plane itself.
    pub(super) async fn in_cluster(&self, org: OrgId, cluster: ClusterId) -> Result<kube::Client, Trouble> {
        let options = CallOptions {
            deadline: Some(ANSWER),
            request_id: RequestId::generate().to_string(),
            wait_for_agent: RETURN,
            ..CallOptions::default()
        };
        self.in_cluster_with(org, cluster, options).await
    }

    /// The same, for answers that go on and on.
    pub(super) async fn in_cluster_with(
        &self,
        org: OrgId,
        cluster: ClusterId,
        options: CallOptions,
    ) -> Result<kube::Client, Trouble> {
        let caller = Caller::controller(org);
        let target = self.authorise_gateway(&caller, &ClusterRef::Id(cluster)).await?;
        let way = self.live().way(target.agent);
        let way = way.ok_or_else(|| Trouble::Away("this process serves no agents".to_owned()))?;
        let extra = [
            ("culvert.dev/org".to_owned(), org.to_string()),
            ("culvert.dev/request-id".to_owned(), options.request_id.clone()),
        ];
        let asking = proto::Caller { user: target.user, groups: target.groups, extra: HashMap::from(extra) };
        let way = way.with_caller(asking).with_options(options);
        Ok(kube::Client::new(way, "default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> Trouble {
        Trouble::from(kube::Error::Api(Status::failure(message, "x").with_code(code).boxed()))
    }

    fn code(trouble: Trouble) -> String {
        match trouble {
            Trouble::Never(failure) => failure.code,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn only_what_can_never_pass_is_permanent() {
        assert_eq!(code(api(422, "spec.version: Invalid value")), "rejected_by_cluster");
        assert_eq!(code(api(403, "pods \"a\" is forbidden: exceeded quota: q")), "cluster_quota");
        assert_eq!(code(api(403, "User \"culvert:controller\" cannot patch resource")), "no_rights");
        assert_eq!(code(api(403, "admission webhook \"w\" denied the request: no")), "denied_by_cluster");
        for passing in [404, 429, 500, 502, 503, 504] {
            assert!(matches!(api(passing, "x"), Trouble::Passing(_)), "{passing}");
        }
        let ending = "unable to create: namespace x because it is being terminated";
        assert!(matches!(api(403, ending), Trouble::Passing(_)));
        assert!(matches!(api(409, "conflict with \"kubectl-edit\""), Trouble::Contested(_)));
    }

    #[test]
    fn a_cluster_that_is_away_is_waited_for() {
        let service = |error: CallError| Trouble::from(kube::Error::Service(Box::new(error)));
        assert!(matches!(service(CallError::NotConnected { since: None }), Trouble::Away(_)));
        assert!(matches!(service(CallError::Deadline), Trouble::Passing(_)));
        assert!(matches!(service(CallError::Lost), Trouble::Passing(_)));
        let denied = culvert_tunnel::Failure::new(FailureCode::Denied, "not here");
        assert_eq!(code(service(CallError::Failure(denied))), "denied_by_local_policy");
    }
}
