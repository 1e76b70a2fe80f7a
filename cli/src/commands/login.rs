//! Sign in, sign out, and who one is.

use std::path::{Path, PathBuf};

use clap::Args;
use culvert_pki::pin::Pin;
use culvert_pki::tls::TlsFailure;
use culvert_pki::token::{BearerToken, SignInCode, TokenKind};
use http::Method;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::client::model::{Info, Me, NewSession};
use crate::client::{Client, Endpoint, parse_url, trust};
use crate::context::{self, Context};
use crate::credential;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::invocation::Invocation;
use crate::output::{Cell, Table};

/// A bundle of CAs that a person would name here is far smaller.
const CA_LIMIT: u64 = 1 << 20;

/// Sign in to a controller with a one-time code
#[derive(Args)]
#[command(after_help = "The code is asked for without echo, or read from CULVERT_CODE or standard input.
The controller prints its address, its pin and the first code when it starts for the first time.

Examples:
  culvert login https://culvert.example.com:8443 --pin sha256:…
  culvert login                       again, to the current context
  printf '%s' \"$CODE\" | culvert login culvert.example.com --ca-file ca.pem
  culvert login culvert.example.com --pin sha256:… --token-file token    for machines")]
pub(crate) struct Login {
    /// The controller; that of the context when left out
    url: Option<String>,
    /// Trust the controller whose root key has this pin
    #[arg(long, value_name = "sha256:PIN", conflicts_with = "ca_file")]
    pin: Option<Pin>,
    /// Trust the controller whose certificate was issued below a CA in this PEM file
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Keep the API token in this file instead of a code's session
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Sign out: end the session at the controller and forget it here
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert logout\n  culvert logout --context factory")]
pub(crate) struct Logout {
    /// Forget the session here even when the controller cannot be reached
    #[arg(long)]
    local: bool,
}

/// Show who is signed in
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert whoami\n  culvert whoami -o json")]
pub(crate) struct Whoami {}

/// Signs in and makes the context current.
pub(crate) async fn login(run: &Invocation, args: Login) -> Result<(), Failure> {
    let (name, known) = target(run, &args)?;
    let url = match (&args.url, &known) {
        (Some(url), _) => parse_url(url)?,
        (None, Some(context)) => parse_url(&context.url)?,
        (None, None) => {
            return Err(
                Failure::new(Exit::Usage, "which controller?").next("culvert login https://HOST[:PORT]")
            );
        }
    };
    let mut context =
        match known.filter(|k| args.pin.is_none() && args.ca_file.is_none() && same(&k.url, &url)) {
            Some(context) => context,
            None => first_contact(run, &args, &url).await?,
        };
    let token = match &args.token_file {
        Some(file) => context::parse_token(&run.secret_file(file)?)?,
        None => exchange_code(run, &mut context).await?,
    };
    let me: Me = run.client_of(&context, Some(token.clone())).await?.get(&["me"]).await?.read()?;
    context.user = Some(me.user.name.clone());
    context.organisation = Some(me.org.called().to_owned());
    if let Some(expires_at) = me.credential.expires_at.clone() {
        context.signed_in_until = Some(expires_at);
    }
    keep(run, &name, context, &token)?;
    run.out.note(&format!("signed in as {} ({}) at {}", me.user.name, me.user.role, me.org.called()));
    run.out.note(&format!("the current context is {name}"));
    Ok(())
}

fn same(stored: &str, url: &Url) -> bool {
    parse_url(stored).is_ok_and(|stored| stored == *url)
}

/// The context's name and what is known of it: the named one, the one with this
/// URL, the current one when there is no URL, else a new one named by the host.
fn target(run: &Invocation, args: &Login) -> Result<(String, Option<Context>), Failure> {
    let all = run.store.load()?;
    let name = match (&run.globals.context, &args.url) {
        (Some(name), _) => name.clone(),
        (None, None) => match all.current.clone() {
            Some(name) => name,
            None => return Ok((String::new(), None)),
        },
        (None, Some(url)) => {
            let url = parse_url(url)?;
            let known = all.contexts.iter().find(|(_, context)| same(&context.url, &url));
            known.map_or_else(|| name_from(&url), |(name, _)| name.clone())
        }
    };
    context::check_name(&name)?;
    let known = all.contexts.get(&name).cloned();
    Ok((name, known))
}

/// `culvert.example.com`, or `localhost-8443` when the port is not the usual one.
fn name_from(url: &Url) -> String {
    let host: String = url
        .host_str()
        .unwrap_or_default()
        .chars()
        .filter(|c| !matches!(c, '[' | ']'))
        .map(|c| if c == ':' { '-' } else { c })
        .collect();
    let host = host.trim_start_matches('-').to_owned();
    let host = if host.is_empty() { "controller".to_owned() } else { host };
    match url.port() {
        Some(port) => format!("{host}-{port}"),
        None => host,
    }
}

/// Reads who the controller is, over a connection verified by pin or CA.
async fn first_contact(run: &Invocation, args: &Login, url: &Url) -> Result<Context, Failure> {
    let basis = match (&args.ca_file, args.pin) {
        (Some(path), _) => Basis::Authority(read_ca(path)?),
        (None, Some(pin)) => Basis::Pin(pin),
        (None, None) => Basis::Pin(ask_for_pin(run, url).await?),
    };
    let (info, other_name) = match info(run, Endpoint::plain(url.clone()), basis.tls()?).await {
        Ok(info) => (info, false),
        Err(failure) => {
            // The chain was right and only the name was not: the certificate holds
            // a name of the same controller, and is reached by that.
            let Some(name) = certificate_name(&failure) else { return Err(failure) };
            (info(run, Endpoint::named(url.clone(), Some(&name)).await?, basis.tls()?).await?, true)
        }
    };
    Ok(Context {
        server_name: other_name.then_some(info.api.server_name),
        pin: basis.pin_among(&trust::pins(&info.ca.pem)?)?.to_string(),
        url: url.as_str().trim_end_matches('/').to_owned(),
        user: None,
        organisation: None,
        signed_in_until: None,
        ca_pem: info.ca.pem,
    })
}

/// What the person said to trust.
enum Basis {
    Pin(Pin),
    Authority(String),
}

impl Basis {
    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        match self {
            Self::Pin(pin) => trust::pinned(*pin),
            Self::Authority(pem) => trust::authority(pem),
        }
    }

    /// The pin to remember: one that is trusted and that the controller names.
    fn pin_among(&self, named: &[Pin]) -> Result<Pin, Failure> {
        let trusted = match self {
            Self::Pin(pin) => vec![*pin],
            Self::Authority(pem) => trust::pins(pem)?,
        };
        trusted.into_iter().find(|pin| named.contains(pin)).ok_or_else(|| {
            Failure::new(Exit::Unreachable, "the controller names another CA than it uses")
                .next("ask whoever runs it for the right pin")
        })
    }
}

async fn info(run: &Invocation, endpoint: Endpoint, tls: rustls::ClientConfig) -> Result<Info, Failure> {
    let client = Client::new(endpoint, tls, None, run.request_time(), run.out.clone())?;
    let info: Info = client.get(&["info"]).await?.read()?;
    if info.product.eq_ignore_ascii_case("culvert") {
        return Ok(info);
    }
    Err(Failure::new(Exit::Failed, "this is no Culvert controller").next("check the URL"))
}

/// A host name in the certificate that was refused for its name alone.
fn certificate_name(failure: &Failure) -> Option<String> {
    let Some(TlsFailure::WrongName { presented, .. }) = &failure.tls else { return None };
    let bare = |name: &String| {
        let inner = name.strip_prefix("DnsName(\"").and_then(|rest| rest.strip_suffix("\")"));
        inner.unwrap_or(name).to_owned()
    };
    let usable =
        |name: &String| *name != "localhost" && !name.contains(['*', '(', '"']) && name.contains('.');
    presented.iter().map(bare).find(usable)
}

fn read_ca(path: &Path) -> Result<String, Failure> {
    let text = files::read_text(path, CA_LIMIT).map_err(|error| Failure::file("read", path, &error))?;
    text.ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", path.display())))
}

/// Shows the pin that the controller presents and asks whether it is the right
/// one. Nothing but the beginning of a handshake was sent before the answer.
async fn ask_for_pin(run: &Invocation, url: &Url) -> Result<Pin, Failure> {
    let Err(failure) = info(run, Endpoint::plain(url.clone()), trust::nobody()?).await else {
        return Err(Failure::new(Exit::Failed, "the controller could not be checked"));
    };
    let Some(TlsFailure::WrongPin { presented }) = failure.tls else { return Err(failure) };
    let host = url.as_str().trim_end_matches('/');
    if !run.may_ask() || run.globals.yes {
        return Err(Failure::new(Exit::Unreachable, format!("{host} is not trusted yet"))
            .because(format!("it presents a CA with the pin {presented}, which nobody has vouched for"))
            .next(format!("compare the pin with the one that the controller printed, then: culvert login {host} --pin {presented}")));
    }
    run.out.notice(&format!("{host} presents a CA with this pin:\n\n    {presented}\n"));
    run.confirm("Is it the one that the controller printed at its first start?").await?;
    Ok(presented)
}

/// Exchanges a one-time code for a session.
async fn exchange_code(run: &Invocation, context: &mut Context) -> Result<SecretString, Failure> {
    let typed = match run.around.text("CULVERT_CODE") {
        Some(code) => Zeroizing::new(code.to_owned()),
        None => run.secret("Sign-in code: ").await?,
    };
    let code = SignInCode::parse(typed.trim()).map_err(|error| {
        Failure::new(Exit::Usage, "this is no sign-in code")
            .because(error)
            .next("a code looks like XXXX-XXXX-XXXX; make one with: culvert-controller sign-in-code")
    })?;
    let client = run.client_of(context, None).await?;
    // The body holds the code, and is wiped with the request.
    let body = Zeroizing::new(format!("{{\"code\":\"{}\"}}", code.expose().as_str()));
    let ask = client.ask(Method::POST, &["sessions"]).raw(body.as_bytes().to_vec());
    let answer = client.send(ask).await.map_err(|mut failure| {
        if failure.exit == Exit::NotSignedIn {
            failure.what = "the code was refused".to_owned();
            failure.next = Some("make a new code with: culvert-controller sign-in-code".to_owned());
        }
        failure
    })?;
    let session: NewSession = answer.read()?;
    context.signed_in_until = session.expires_at;
    context::parse_token(session.token.expose_secret())
}

fn keep(run: &Invocation, name: &str, context: Context, token: &SecretString) -> Result<(), Failure> {
    if let Ok(Some(old)) = run.store.token(name) {
        credential::forget(&run.store, name, &old);
    }
    run.store.set_token(name, token)?;
    run.store.update(|all| {
        all.contexts.insert(name.to_owned(), context);
        all.current = Some(name.to_owned());
        Ok(())
    })
}

/// Ends the session.
pub(crate) async fn logout(run: &Invocation, args: &Logout) -> Result<(), Failure> {
    let (name, context) = run.context()?;
    let Some(token) = run.store.token(&name)? else {
        run.out.note(&format!("{name}: already signed out"));
        return Ok(());
    };
    let session = BearerToken::parse(token.expose_secret()).is_ok_and(|t| t.kind() == TokenKind::Session);
    if session && !args.local {
        let client = run.client_of(&context, Some(token.clone())).await?;
        match client.send(client.ask(Method::DELETE, &["sessions", "current"])).await {
            Err(failure) if failure.exit != Exit::NotSignedIn => {
                return Err(failure.next("culvert logout --local, to forget the session here only"));
            }
            _ => {}
        }
    }
    credential::forget(&run.store, &name, &token);
    run.store.forget_token(&name)?;
    run.store.update(|all| {
        if let Some(context) = all.contexts.get_mut(&name) {
            context.signed_in_until = None;
        }
        Ok(())
    })?;
    run.out.note(&format!("{name}: signed out"));
    Ok(())
}

/// Shows who is signed in.
pub(crate) async fn whoami(run: &Invocation) -> Result<(), Failure> {
    let answer = run.client().await?.get(&["me"]).await?;
    let me: Me = answer.read()?;
    let (name, context) = run.context()?;
    let mut table = Table::facts();
    table.fact("user", Cell::new(&me.user.name));
    table.fact("id", Cell::new(&me.user.id));
    table.fact("role", Cell::new(&me.user.role));
    table.fact("organisation", Cell::new(me.org.called()));
    let credential =
        me.credential.name.map_or(me.credential.kind.clone(), |n| format!("{} {n}", me.credential.kind));
    table.fact("credential", Cell::new(credential.replace('_', " ")));
    table.fact("expires", Cell::from(me.credential.expires_at.map(|at| run.out.clock.show(&at))));
    table.fact("context", Cell::new(name));
    table.fact("controller", Cell::new(context.url));
    run.out.answer(&answer.tree()?, &table, &[me.user.name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_named_after_its_controller() {
        let named = |text: &str| name_from(&parse_url(text).unwrap());
        assert_eq!(named("culvert.example.com"), "culvert.example.com");
        assert_eq!(named("localhost:8443"), "localhost-8443");
        assert_eq!(named("[::1]:8443"), "1-8443");
        for text in ["culvert.example.com", "[::1]:8443", "[::]", "10.0.0.1:1"] {
            context::check_name(&named(text)).unwrap();
        }
    }

    #[test]
    fn a_name_is_found_in_a_refused_certificate() {
        let mut failure = Failure::new(Exit::Unreachable, "x");
        assert_eq!(certificate_name(&failure), None);
        let presented = ["IpAddress(127.0.0.1)", "DnsName(\"localhost\")", "DnsName(\"culvert.internal\")"];
        failure.tls = Some(TlsFailure::WrongName {
            expected: "10.0.0.1".to_owned(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        });
        assert_eq!(certificate_name(&failure).as_deref(), Some("culvert.internal"));
    }
}
