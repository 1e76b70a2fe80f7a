//! The version of this command and of the controller.

use clap::Args;

use crate::client::model::Info;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tree};

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Show the version of this command and of the controller
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert version\n  culvert version --client -o name")]
pub(crate) struct Version {
    /// Do not ask the controller
    #[arg(long)]
    client: bool,
}

pub(crate) async fn run(run: &Invocation, args: &Version) -> Result<(), Failure> {
    let server = if args.client { None } else { server(run).await };
    let mut table = Table::facts();
    table.fact("culvert", Cell::new(VERSION));
    let mut fields = vec![("client", Tree::map([("version", Tree::from(VERSION))]))];
    if let Some(info) = &server {
        table.fact("controller", Cell::new(&info.version));
        fields.push(("controller", Tree::map([("version", Tree::from(info.version.as_str()))])));
    }
    run.out.answer(&Tree::map(fields), &table, &[VERSION.to_owned()])
}

/// The controller's own words; a controller that cannot be asked is no error here.
async fn server(run: &Invocation) -> Option<Info> {
    let (_, context) = run.context().ok()?;
    let asked = async { run.client_of(&context, None).await?.get(&["info"]).await?.read::<Info>() };
    match asked.await {
        Ok(info) => Some(info),
        Err(failure) => {
            run.out.note(&format!("the controller was not asked: {}", failure.what));
            None
        }
    }
}

/// Whether two versions may differ in what they speak: the first number, and
/// before 1.0 the second one too.
pub(crate) fn speaks_alike(ours: &str, theirs: &str) -> bool {
    let parts = |version: &str| -> Vec<u64> {
        version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).take(2).collect()
    };
    match (parts(ours).as_slice(), parts(theirs).as_slice()) {
        ([0, a], [0, b]) => a == b,
        ([a, _], [b, _]) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::speaks_alike;

    #[test]
    fn before_one_each_minor_version_may_differ() {
        assert!(speaks_alike("0.1.0", "0.1.9"));
        assert!(!speaks_alike("0.1.0", "0.2.0"));
        assert!(speaks_alike("1.2.0", "1.9.0-rc.1"));
        assert!(!speaks_alike("1.2.0", "2.0.0"));
        assert!(!speaks_alike("1.2.0", "unknown"));
    }
}
