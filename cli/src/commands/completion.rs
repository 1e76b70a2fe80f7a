//! Completion scripts.

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::invocation::Invocation;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "Examples:
  source <(culvert completion bash)
  culvert completion zsh > \"${fpath[1]}/_culvert\"
  culvert completion fish > ~/.config/fish/completions/culvert.fish")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(run: &Invocation, args: &Completion) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "culvert", &mut script);
    run.out.data(&String::from_utf8_lossy(&script))
}
