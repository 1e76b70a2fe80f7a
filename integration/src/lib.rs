//! Fixtures for stories: real parts, started in seconds and gone afterwards.
//!
//! A story drives Culvert from outside, as its users do, against the real thing: a
//! Kubernetes API server built from its sources, a node with containers, a
//! PostgreSQL, a proxy, a network that lets one port out. Nothing here is a double,
//! because the faults that hurt live between the parts, where a double agrees
//! with whoever wrote it.
//!
//! | room | what it gives | ready in |
//! | --- | --- | --- |
//! | [`kube::ControlPlane`] | etcd, API server and controllers; no root; one for each story | 4 s |
//! | [`kube::Cluster`] | the same with a node that runs pods; one is shared by all stories | 10 s |
//! | [`site::Site`] | a network namespace that lets nothing in and chosen ports out | 0.2 s |
//! | [`proxy::ConnectProxy`] | an HTTP CONNECT proxy that asks for a password | 0.1 s |
//! | [`front::Front`] | a web server (nginx) that ends TLS before the controller | 0.1 s |
//! | [`proxy::Interceptor`] | a box that opens TLS and signs as "Corp Inspect" | at once |
//! | [`postgres::Postgres`] | an empty PostgreSQL server | 2 s |
//! | [`data_plane::DataPlane`] | the shared cluster with the operator, volumes, engines and stores | 10 s |
//! | [`engines`] | the images of PostgreSQL and Valkey that data services run | at once |
//! | [`targets`] | servers of S3 and Azure Blob Storage, with TLS | 0.5 s |
//! | [`webhook::Webhook`] | an admission webhook that says no | at once |
//! | [`https::Https`] | a server with TLS that answers as a story says | at once |
//! | [`origin::Origin`] | a small API server whose answers are large, slow, endless or missing | at once |
//! | [`process::Child`] | any program, with its log, its end, and ways to end it | at once |
//! | [`figures`] | medians, ratios and tables of what was measured | |
//! | [`usage::Usage`] | what processes use: processor, memory, disk | |
//! | [`wait::until`] | the only way to wait: bounded, and says what it saw last | |
//! | [`controller`], [`agent`], [`api`], [`gateway`], [`stage`] | Culvert itself on top of these | |
//! | [`faults::FaultProxy`] | a stretch of network that delays, stops, forgets and cuts | at once |
//! | [`hand::Hand`], [`door::Door`], [`relay::Relay`] | clients that do what a well-behaved one never does | |
//!
//! # Who cleans up
//! Every fixture ends what it started when it is dropped. A test run that is killed
//! drops nothing, and a `static` is never dropped, so there is a second way for each:
//! processes ask the kernel to be killed with their parent, and a cluster is
//! watched by a guard that sees the kernel let go of a lock. Nothing is found by its
//! name, so runs side by side leave each other alone.
//!
//! # Mistakes that are easy to make
//! - `tokio::time::sleep` and a hope. Use [`wait::until`]; its closure returns what
//!   it sees as an error until it sees what the story waits for.
//! - Blocking in a story while an in-process server shares its runtime. All methods
//!   that take time are async; only dropping blocks, for about a second.
//! - A fixed name in the shared cluster. Take a [`kube::Kubernetes::namespace`], and
//!   put its name into the names of anything that is not in a namespace.
//! - `127.0.0.1` as a controller's address for pods or a site. They have their own
//!   loopback; use [`kube::Cluster::address`] (and open the port) or
//!   [`site::Site::gateway`].
//! - A `NetworkPolicy` that should stop something: the kit stores it and nothing
//!   enforces it. Use a [`site::Site`].
//! - Adding `env_clear` to a command for [`process::Child::spawn`]: it is not seen
//!   there. Remove variables by name.

pub mod agent;
pub mod api;
pub mod controller;
pub mod data_plane;
pub mod door;
pub mod engines;
pub mod faults;
pub mod figures;
pub mod front;
pub mod gateway;
pub mod hand;
pub mod https;
pub mod kube;
pub mod origin;
pub mod person;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod site;
pub mod stage;
pub mod targets;
pub mod usage;
pub mod wait;
pub mod webhook;
