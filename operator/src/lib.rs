//! Reconciles data services in a cluster, with or without a control plane.
