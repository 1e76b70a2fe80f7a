//! The life of the runner's process.

fn main() {}
