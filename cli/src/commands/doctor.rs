//! Every step between here and the controller, checked one by one.
//!
//! A check that fails makes those that stand on it skipped, so the first line
//! that is wrong is the one to mend.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use culvert_pki::tls::TlsFailure;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::Url;
use tokio::net::TcpStream;

use super::version::{VERSION, speaks_alike};
use crate::client::model::{Info, Me};
use crate::client::{Answer, Client, Endpoint, parse_url, trust};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tone, Tree, clean};

/// Time for a name to resolve, and for a connection to open.
const STEP_TIME: Duration = Duration::from_secs(10);
/// Certificates are issued with five minutes of grace before; half of it is a warning.
const SKEW_WARNING: i64 = 30;
const SKEW_FAILURE: i64 = 150;

/// Check the way to the controller: DNS, proxy, TLS, clock, versions, sign-in, kubectl
#[derive(Args)]
#[command(
    after_help = "The exit code is that of the first check that failed: 8 for the way there, 3 for the sign-in.

Examples:
  culvert doctor
  culvert doctor https://culvert.example.com:8443    before the first login
  culvert doctor -o json"
)]
pub(crate) struct Doctor {
    /// A controller that is no context yet
    url: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    Warning,
    Failed(Exit),
    Skipped,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed(_) => "failed",
            Self::Skipped => "skipped",
        }
    }
}

struct Check {
    name: &'static str,
    health: Health,
    detail: String,
    remedy: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Report {
    checks: Vec<Check>,
}

impl Report {
    fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Health::Ok, detail, None);
    }

    fn add(&mut self, name: &'static str, health: Health, detail: impl Into<String>, remedy: Option<&str>) {
        let remedy = remedy.map(str::to_owned);
        self.checks.push(Check { name, health, detail: detail.into(), remedy });
    }

    fn failure(&mut self, name: &'static str, failure: Failure) {
        let detail = failure.cause().to_owned();
        let remedy = failure.next.clone();
        self.checks.push(Check { name, health: Health::Failed(failure.exit), detail, remedy });
    }

    fn skip(&mut self, names: &[&'static str]) {
        names.iter().for_each(|name| self.add(name, Health::Skipped, "", None));
    }
}

/// Runs all checks, shows them, and fails with the first that failed.
pub(crate) async fn run(run: &Invocation, args: &Doctor) -> Result<(), Failure> {
    let mut report = Report::default();
    match subject(run, args) {
        Ok((url, context)) => {
            let known = context.as_ref().map_or("not a context yet", |(name, _)| name);
            report.ok("controller", format!("{} ({known})", url.as_str().trim_end_matches('/')));
            way(run, &mut report, &url, context).await;
        }
        Err(failure) => {
            report.failure("controller", failure);
            report.skip(&["proxy", "name", "connection", "TLS", "clock", "version", "sign-in"]);
        }
    }
    kubectl(run, &mut report);
    show(run, &report)?;
    match report
        .checks
        .iter()
        .find_map(|c| if let Health::Failed(exit) = c.health { Some((exit, c)) } else { None })
    {
        Some((exit, check)) => {
            let failure =
                Failure::new(exit, format!("the check \"{}\" failed", check.name)).because(&check.detail);
            Err(match &check.remedy {
                Some(remedy) => failure.next(remedy),
                None => failure,
            })
        }
        None => Ok(()),
    }
}

fn subject(run: &Invocation, args: &Doctor) -> Result<(Url, Option<(String, Context)>), Failure> {
    match &args.url {
        Some(text) => {
            let url = parse_url(text)?;
            let all = run.store.load()?;
            let known =
                all.contexts.into_iter().find(|(_, c)| parse_url(&c.url).is_ok_and(|known| known == url));
            Ok((url, known))
        }
        None => {
            let (name, context) = run.context()?;
            Ok((parse_url(&context.url)?, Some((name, context))))
        }
    }
}

/// From here to the API, step by step.
async fn way(run: &Invocation, report: &mut Report, url: &Url, context: Option<(String, Context)>) {
    let later = ["name", "connection", "TLS", "clock", "version", "sign-in"];
    let hop = match proxy(report, url) {
        Ok(hop) => hop,
        Err(()) => return report.skip(&later),
    };
    let Some(addresses) = name(report, &hop).await else {
        return report.skip(later.get(1..).unwrap_or_default());
    };
    if !connection(report, &addresses).await {
        return report.skip(later.get(2..).unwrap_or_default());
    }
    let Some(answer) = tls(run, report, url, context.as_ref().map(|(_, c)| c)).await else {
        return report.skip(later.get(3..).unwrap_or_default());
    };
    clock(report, &answer);
    version(report, &answer);
    match context {
        Some((name, context)) => sign_in(run, report, &name, &context).await,
        None => report.skip(&["sign-in"]),
    }
}

/// The next hop: the proxy that the environment names for this URL, or the controller.
fn proxy(report: &mut Report, url: &Url) -> Result<(String, u16), ()> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let direct = (host, url.port_or_known_default().unwrap_or(443));
    let Ok(uri) = url.as_str().parse::<Uri>() else { return Ok(direct) };
    let Some(found) = Matcher::from_env().intercept(&uri) else {
        report.ok("proxy", "none; the connection is direct");
        return Ok(direct);
    };
    let proxy = found.uri();
    let Some(host) = proxy.host() else {
        let remedy = "write it as HTTPS_PROXY=http://host:port, or unset it";
        report.add("proxy", Health::Failed(Exit::Unreachable), "it has no host", Some(remedy));
        return Err(());
    };
    let port = proxy.port_u16().unwrap_or(if proxy.scheme_str() == Some("https") { 443 } else { 80 });
    report.ok("proxy", format!("{host}:{port}, from the environment"));
    Ok((host.to_owned(), port))
}

async fn name(report: &mut Report, (host, port): &(String, u16)) -> Option<Vec<SocketAddr>> {
    let lookup = tokio::time::timeout(STEP_TIME, tokio::net::lookup_host((host.as_str(), *port))).await;
    let remedy = Some("check the spelling of the host and this machine's DNS servers");
    match lookup {
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.collect();
            let list: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            report.ok("name", format!("{host} is {}", list.join(", ")));
            Some(found)
        }
        Ok(Err(error)) => {
            report.add("name", Health::Failed(Exit::Unreachable), format!("{host}: {error}"), remedy);
            None
        }
        Err(_) => {
            let detail = format!("{host}: no answer in {}s", STEP_TIME.as_secs());
            report.add("name", Health::Failed(Exit::Unreachable), detail, remedy);
            None
        }
    }
}

async fn connection(report: &mut Report, addresses: &[SocketAddr]) -> bool {
    let mut last = "there is no address".to_owned();
    for address in addresses {
        match tokio::time::timeout(STEP_TIME, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                report.ok("connection", format!("{address} accepts"));
                return true;
            }
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer in {}s", STEP_TIME.as_secs()),
        }
    }
    let remedy = "check that it runs, the port, and the firewall on the way out";
    report.add("connection", Health::Failed(Exit::Unreachable), last, Some(remedy));
    false
}

async fn tls(run: &Invocation, report: &mut Report, url: &Url, context: Option<&Context>) -> Option<Answer> {
    let asked = async {
        let client = match context {
            Some(context) => run.client_of(context, None).await?,
            None => {
                let endpoint = Endpoint::plain(url.clone());
                Client::new(endpoint, trust::nobody()?, None, run.request_time(), run.out.clone())?
            }
        };
        client.get(&["info"]).await
    };
    match asked.await {
        Ok(answer) => {
            let pin = context.map(|context| context.pin.clone()).unwrap_or_default();
            report.ok("TLS", format!("issued below the CA {pin}"));
            Some(answer)
        }
        Err(failure) => {
            match (&failure.tls, context) {
                (Some(TlsFailure::WrongPin { presented }), None) => {
                    let remedy = format!(
                        "compare it with the pin that the controller printed, then: culvert login {} --pin {presented}",
                        url.as_str().trim_end_matches('/')
                    );
                    report.add(
                        "TLS",
                        Health::Warning,
                        format!("presents a CA with the pin {presented}"),
                        Some(&remedy),
                    );
                }
                _ => report.failure("TLS", failure),
            }
            None
        }
    }
}

/// This machine's clock against the `Date` of the answer, which has whole seconds.
fn clock(report: &mut Report, answer: &Answer) {
    let date = answer.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let Some(there) = date.and_then(|date| rfc2822::parse(date).ok()) else {
        return report.add("clock", Health::Skipped, "the answer has no date", None);
    };
    let skew = Timestamp::now().as_second() - there.timestamp().as_second();
    let detail = match skew {
        0 => "agrees with the controller's".to_owned(),
        ahead if ahead > 0 => format!("{ahead}s ahead of the controller's"),
        behind => format!("{}s behind the controller's", -behind),
    };
    let health = match skew.abs() {
        0..=SKEW_WARNING => Health::Ok,
        skew if skew <= SKEW_FAILURE => Health::Warning,
        _ => Health::Failed(Exit::Failed),
    };
    let remedy = (health != Health::Ok).then_some("let NTP set the clock of this machine");
    report.add("clock", health, detail, remedy);
}

fn version(report: &mut Report, answer: &Answer) {
    let info: Info = match answer.read() {
        Ok(info) => info,
        Err(failure) => return report.failure("version", failure),
    };
    let detail = format!("culvert {VERSION}, controller {}", info.version);
    if speaks_alike(VERSION, &info.version) {
        report.ok("version", detail);
    } else {
        report.add(
            "version",
            Health::Warning,
            detail,
            Some("install the culvert of the controller's release"),
        );
    }
}

async fn sign_in(run: &Invocation, report: &mut Report, name: &str, context: &Context) {
    let asked = async {
        let token = run.token(name)?.ok_or_else(|| {
            Failure::not_signed_in("there is no session").next(format!("culvert login --context {name}"))
        })?;
        run.client_of(context, Some(token)).await?.get(&["me"]).await?.read::<Me>()
    };
    match asked.await {
        Ok(me) => {
            let until = me.credential.expires_at.map(|at| format!(" until {}", run.out.clock.show(&at)));
            report.ok("sign-in", format!("{} ({}){}", me.user.name, me.user.role, until.unwrap_or_default()));
        }
        Err(failure) => report.failure("sign-in", failure),
    }
}

fn kubectl(run: &Invocation, report: &mut Report) {
    let found = |program| run.around.find_program(program).map(|path| path.display().to_string());
    match found("kubectl") {
        Some(path) => report.ok("kubectl", path),
        None => {
            report.add("kubectl", Health::Warning, "is not in PATH", Some("install kubectl to use clusters"))
        }
    }
}

fn show(run: &Invocation, report: &Report) -> Result<(), Failure> {
    let mut table = Table::new(&["CHECK", "RESULT", "DETAIL"], &[]);
    let text = |text: &str| Tree::from(text);
    let mut items = Vec::new();
    for check in &report.checks {
        table.row([Cell::new(check.name), Cell::state(check.health.word()), Cell::new(&check.detail)]);
        items.push(Tree::map([
            ("check", text(check.name)),
            ("result", text(check.health.word())),
            ("detail", text(&check.detail)),
            ("remedy", check.remedy.as_deref().map_or(Tree::Null, text)),
        ]));
    }
    let names: Vec<String> = report.checks.iter().map(|check| check.name.to_owned()).collect();
    run.out.answer(&Tree::map([("checks", Tree::List(items))]), &table, &names)?;
    for check in report.checks.iter().filter(|check| check.health == Health::Warning && run.out.for_people())
    {
        if let Some(remedy) = &check.remedy {
            let label = run.out.notes_paint().apply(Tone::Warning, "warning:");
            run.out.note(&format!("{label} {}: {}", check.name, clean(remedy)));
        }
    }
    Ok(())
}
