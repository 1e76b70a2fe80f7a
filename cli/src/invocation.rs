//! One run of one command: what was asked globally, and the way to its context.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use rustix::termios::{self, LocalModes, OptionalActions};
use secrecy::SecretString;
use zeroize::{Zeroize, Zeroizing};

use crate::args::Globals;
use crate::client::{Client, Endpoint, parse_url, trust};
use crate::context::{self, Context, Store};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::Out;
use crate::surroundings::Surroundings;

/// A secret that people type or pipe is one short line.
const SECRET_LIMIT: u64 = 4096;

/// Everything a command needs besides its own arguments.
pub(crate) struct Invocation {
    pub(crate) around: Surroundings,
    pub(crate) globals: Globals,
    pub(crate) store: Store,
    pub(crate) out: Out,
}

impl Invocation {
    pub(crate) fn new(around: Surroundings, globals: Globals) -> Self {
        let out = Out::new(&around, globals.format, globals.utc, globals.quiet, globals.verbose);
        let store = Store::at(around.config_file());
        Self { around, globals, store, out }
    }

    /// The context asked for: its name and what it holds.
    pub(crate) fn context(&self) -> Result<(String, Context), Failure> {
        self.store.choose(self.globals.context.as_deref())
    }

    /// The token for a context: that of the environment, which is for machines,
    /// or the stored one.
    pub(crate) fn token(&self, name: &str) -> Result<Option<SecretString>, Failure> {
        if let Some(token) = self.around.text("CULVERT_API_TOKEN") {
            return context::parse_token(token).map(Some);
        }
        if let Some(path) = self.around.variable("CULVERT_API_TOKEN_FILE") {
            return self.secret_file(path.as_ref()).and_then(|text| context::parse_token(&text)).map(Some);
        }
        self.store.token(name)
    }

    /// A client of the context with its session; fails when there is none, before
    /// anything is sent, so that this never looks like a fault of the network.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.client_with(self.request_time()).await
    }

    /// The same for a command that waits: `--timeout` is for the wait, and each
    /// request keeps the usual time.
    pub(crate) async fn waiting_client(&self) -> Result<Client, Failure> {
        self.client_with(None).await
    }

    async fn client_with(&self, time: Option<Duration>) -> Result<Client, Failure> {
        let (name, context) = self.context()?;
        let token = self.token(&name)?.ok_or_else(|| {
            Failure::not_signed_in(format!("the context \"{name}\" has no session"))
                .next(login_hint(&self.globals))
        })?;
        self.connected(&context, Some(token), time).await
    }

    /// A client of a context with or without a session.
    pub(crate) async fn client_of(
        &self,
        context: &Context,
        token: Option<SecretString>,
    ) -> Result<Client, Failure> {
        self.connected(context, token, self.request_time()).await
    }

    async fn connected(
        &self,
        context: &Context,
        token: Option<SecretString>,
        time: Option<Duration>,
    ) -> Result<Client, Failure> {
        let endpoint = Endpoint::named(parse_url(&context.url)?, context.server_name.as_deref()).await?;
        Client::new(endpoint, trust::authority(&context.ca_pem)?, token, time, self.out.clone())
    }

    /// `--timeout` as the time for one answer.
    pub(crate) fn request_time(&self) -> Option<Duration> {
        self.globals.timeout
    }

    /// Whether a person can be asked something.
    pub(crate) fn may_ask(&self) -> bool {
        !self.globals.no_input && self.around.stdin_is_terminal && self.around.stderr_is_terminal
    }

    /// Asks for a yes, unless `--yes` said it. Without a terminal it is a refusal
    /// that names the flag.
    pub(crate) async fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.globals.yes {
            return Ok(());
        }
        if !self.may_ask() {
            return Err(
                Failure::new(Exit::Usage, "this needs a yes, and nobody can be asked").next("add --yes")
            );
        }
        self.out.ask(&format!("{question} [y/N] "));
        let answer = read_line(false).await?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(declined()) }
    }

    /// Asks to type a name, for what cannot be undone.
    pub(crate) async fn confirm_name(&self, question: &str, name: &str) -> Result<(), Failure> {
        if self.globals.yes {
            return Ok(());
        }
        if !self.may_ask() {
            return Err(
                Failure::new(Exit::Usage, "this cannot be undone, and nobody can be asked").next("add --yes")
            );
        }
        self.out.ask(&format!("{question}\nType {name} to go on: "));
        let answer = read_line(false).await?;
        if answer.trim() == name { Ok(()) } else { Err(declined()) }
    }

    /// A secret typed without echo, or the first line of standard input.
    pub(crate) async fn secret(&self, prompt: &str) -> Result<Zeroizing<String>, Failure> {
        if self.around.stdin_is_terminal {
            if !self.may_ask() {
                return Err(Failure::new(Exit::Usage, "a code is needed, and nobody can be asked")
                    .next("give it on standard input, or in CULVERT_CODE"));
            }
            self.out.ask(prompt);
            return read_line(true).await;
        }
        read_line(false).await
    }

    /// A secret from a file that only its owner can read.
    pub(crate) fn secret_file(&self, path: &std::path::Path) -> Result<Zeroizing<String>, Failure> {
        let text =
            files::read_private(path, SECRET_LIMIT).map_err(|error| Failure::file("read", path, &error))?;
        text.map(Zeroizing::new)
            .ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", path.display())))
    }

    /// All of standard input, up to a limit.
    pub(crate) fn stdin(limit: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::new(Exit::Failed, "cannot read standard input").because(error))?;
        if bytes.len() as u64 > limit {
            return Err(Failure::new(Exit::Usage, format!("standard input has more than {limit} bytes")));
        }
        Ok(bytes)
    }
}

/// The sign-in command for the context that was asked for.
pub(crate) fn login_hint(globals: &Globals) -> String {
    match &globals.context {
        Some(name) => format!("culvert login --context {name}"),
        None => "culvert login".to_owned(),
    }
}

fn declined() -> Failure {
    Failure::new(Exit::Failed, "nothing was done").because("it was not confirmed")
}

/// One line of standard input. Ctrl-C while typing puts the echo back.
async fn read_line(hidden: bool) -> Result<Zeroizing<String>, Failure> {
    let echo = if hidden { Some(EchoOff::now()?) } else { None };
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = Zeroizing::new(String::new());
        io::stdin().lock().take(SECRET_LIMIT).read_line(&mut line).map(|_| line)
    });
    let outcome = tokio::select! {
        line = reading => line.map_err(io::Error::other).and_then(|line| line),
        _ = tokio::signal::ctrl_c() => Err(io::ErrorKind::Interrupted.into()),
    };
    drop(echo);
    match outcome {
        Ok(mut line) => {
            let trimmed = Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned());
            line.zeroize();
            Ok(trimmed)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(interrupted()),
        Err(error) => Err(Failure::new(Exit::Failed, "cannot read standard input").because(error)),
    }
}

/// Ctrl-C.
pub(crate) fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted")
}

/// A terminal that does not show what is typed, until this is dropped.
struct EchoOff {
    before: termios::Termios,
}

impl EchoOff {
    fn now() -> Result<Self, Failure> {
        let cannot = |error: rustix::io::Errno| {
            Failure::new(Exit::Failed, "cannot hide what is typed")
                .because(error)
                .next("give the code in CULVERT_CODE")
        };
        let before = termios::tcgetattr(io::stdin()).map_err(cannot)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &quiet).map_err(cannot)?;
        Ok(Self { before })
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        // There is no one left to tell when a terminal has gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        let _ = io::stderr().flush();
    }
}
