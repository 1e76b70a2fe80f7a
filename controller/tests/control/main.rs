//! The control plane from its store to its API, on real databases.

mod access;
mod bootstrap;
mod enrolment;
mod events;
mod fixture;
mod gateway;
mod postgres;
mod requests;
mod rest;
mod store;
