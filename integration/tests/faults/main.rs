//! Story: whatever goes wrong on the way between caller and cluster, nothing hangs. Each
//! call ends with its data, or with an error that names the cause, within its deadline;
//! others do not notice; and afterwards nothing is left behind.
//!
//! The parts are real but for what the agent reaches, which is a small server whose
//! answers can be as slow, large and endless as a story wants. Stories that wait for
//! somebody's patience to end run side by side, each on a line and an agent of its own.

mod calls;
mod drain;
mod lines;
mod processes;
mod rolling;
mod scene;
