//! What the person who started the controller is told.

use std::io::Write as _;

use time::format_description::well_known::Rfc3339;

use crate::app::{App, FirstSignIn};
use crate::config::Config;

/// Logs that the controller is up; while nobody has signed in yet, also prints how to, on
/// standard error and not in the log, because the code is a secret.
pub(super) fn greet(config: &Config, app: &App, first: Option<&FirstSignIn>) {
    let address = config.public_address();
    tracing::info!(listen = %config.listen, %address, domain = %config.domain.as_str(), ops = %config.ops_listen, "controller is up");
    if let Some(first) = first {
        let text = block(&address.to_string(), &app.pin().to_string(), first);
        if let Err(error) = std::io::stderr().write_all(text.as_bytes()) {
            tracing::warn!(%error, "the first sign-in code cannot be shown; culvert-controller sign-in-code makes another");
        }
    }
}

fn block(address: &str, pin: &str, first: &FirstSignIn) -> String {
    let code = match &first.file {
        Some(file) => format!("in the file {}", file.display()),
        None => first.code.expose().to_owned(),
    };
    let until = first.expires_at.format(&Rfc3339).unwrap_or_default();
    format!(
        "\n  Culvert is ready, and nobody has signed in yet.\n\n    address       https://{address}\n    CA pin        {pin}\n    sign-in code  {code}\n    for           {}, once, until {until}\n\n  Next:\n    culvert login {address} --pin {pin}\n\n",
        first.user
    )
}
