//! A sign-in code for somebody who sits at the controller's own machine.

use crate::app::{App, BootstrapError, Clock, IssuedCode};
use crate::config::Config;
use crate::domain::Name;

/// Makes a one-time code for `user`, or for the first administrator. The controller may be
/// running or not.
pub async fn sign_in_code(config: &Config, user: Option<&Name>) -> Result<IssuedCode, BootstrapError> {
    let opened = App::open(config, None, Clock::system()).await?;
    let code = match (user, opened.first_sign_in) {
        (None, Some(first)) => IssuedCode { code: first.code, expires_at: first.expires_at },
        _ => opened.app.create_sign_in_code_locally(user).await?,
    };
    opened.app.close().await?;
    Ok(code)
}
