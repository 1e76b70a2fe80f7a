//! The life of the process `culvert`: surroundings, arguments, one command, exit code.

use std::process::ExitCode;

use culvert_cli::Surroundings;

fn main() -> ExitCode {
    // A second installation is refused, and the first one is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let surroundings = Surroundings::of_this_process();
    ExitCode::from(culvert_cli::run(surroundings, std::env::args_os()))
}
