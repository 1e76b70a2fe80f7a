//! Names of everything that belongs to a database.
use culvert_resources::meta;

/// Names of the objects of a database in its namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    name: &'a str,
    namespace: &'a str,
}

impl<'a> Names<'a> {
    pub(crate) fn new(name: &'a str, namespace: &'a str) -> Self {
        Self { name, namespace }
    }

    /// Service of the primary, StatefulSet, PodDisruptionBudget, NetworkPolicy.
    pub(crate) fn own(self) -> String {
        self.name.to_owned()
    }

    /// Headless Service with a name for each pod.
    pub(crate) fn pods(self) -> String {
        format!("{}-pods", self.name)
    }

    /// Service of the replicas.
    pub(crate) fn replicas(self) -> String {
        format!("{}-ro", self.name)
    }

    /// ServiceAccount, Role, RoleBinding, ConfigMap.
    pub(crate) fn instance(self) -> String {
        format!("{}-instance", self.name)
    }

    /// Secret with all passwords, for the instances.
    pub(crate) fn credentials(self) -> String {
        format!("{}-credentials", self.name)
    }

    /// Secret of the owner of the data.
    pub(crate) fn owner(self) -> String {
        format!("{}-owner", self.name)
    }

    /// Secret of the administrator.
    pub(crate) fn admin(self) -> String {
        format!("{}-admin", self.name)
    }

    /// Secret with the server's certificate and key.
    pub(crate) fn tls(self) -> String {
        format!("{}-tls", self.name)
    }

    /// Secret with the authority's certificate, for clients.
    pub(crate) fn ca(self) -> String {
        format!("{}-ca", self.name)
    }

    /// Secret with the authority's key; mounted nowhere.
    pub(crate) fn ca_key(self) -> String {
        format!("{}-ca-key", self.name)
    }

    /// Lease of the primary.
    pub(crate) fn lease(self) -> String {
        format!("{}-primary", self.name)
    }

    /// A pod.
    pub(crate) fn pod(self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// The volume claim of a pod.
    pub(crate) fn claim(self, ordinal: i32) -> String {
        format!("{}-{}-{ordinal}", super::VOLUME, self.name)
    }

    /// DNS name of the primary.
    pub(crate) fn host(self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// DNS name of the replicas.
    pub(crate) fn replicas_host(self) -> String {
        format!("{}.{}.svc", self.replicas(), self.namespace)
    }

    /// The ordinal of a pod of this database.
    pub(crate) fn ordinal(self, pod: &str) -> Option<i32> {
        pod.strip_prefix(self.name)?.strip_prefix('-')?.parse().ok()
    }

    /// Every name under which the server may be called, for its certificate.
    pub(crate) fn server(self) -> Vec<String> {
        let mut names = Vec::new();
        for service in [self.own(), self.replicas(), self.pods(), format!("*.{}", self.pods())] {
            for ending in ["", ".{ns}", ".{ns}.svc", ".{ns}.svc.cluster.local"] {
                // A wildcard of a name without a dot is none to some clients, and no harm to others.
                names.push(format!("{service}{}", ending.replace("{ns}", self.namespace)));
            }
        }
        names.push("localhost".to_owned());
        names
    }

    /// The labels by which the pods are found.
    pub(crate) fn selector(self) -> [(String, String); 1] {
        [(meta::DATABASE.to_owned(), self.name.to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_number() {
        let names = Names::new("orders", "shop");
        assert_eq!(names.ordinal(&names.pod(3)), Some(3));
        assert_eq!(names.ordinal("orders-x-0"), None);
        assert_eq!(names.ordinal("other-0"), None);
        assert_eq!(names.claim(0), "data-orders-0");
    }

    #[test]
    fn a_certificate_names_services_and_pods() {
        let server = Names::new("orders", "shop").server();
        for wanted in
            ["orders", "orders.shop.svc", "orders-ro.shop.svc.cluster.local", "*.orders-pods.shop.svc"]
        {
            assert!(server.iter().any(|name| name == wanted), "{wanted}");
        }
    }
}
