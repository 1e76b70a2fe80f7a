//! The running engine: brings what stands in its files into force, and tells what waits for a restart.

use culvert_engines::{Engine as Known, catalogue};
use redis::cmd;

use super::conf::{self, Directive};
use super::info::Info;
use super::link::Link;
use super::record::{KEY, Record};
use super::settings::{TLS_FILES, conf_path, is_live};
use super::users::User;
use crate::args::Folders;
use crate::engine::EngineError;

fn known() -> Option<&'static Known> {
    catalogue().engine("valkey")
}

/// What stands in the configuration file.
pub(super) fn written(folders: &Folders) -> Result<Vec<Directive>, EngineError> {
    let text = std::fs::read_to_string(conf_path(folders))
        .map_err(|error| EngineError::file("read valkey.conf", error))?;
    Ok(conf::read(&text))
}

/// What the engine tells of itself.
pub(super) async fn info(link: &mut Link) -> Result<Info, EngineError> {
    let text: String = link.ask("ask how the engine is", &cmd("INFO")).await?;
    Ok(Info::read(&text))
}

/// Sets all that a running engine takes, and follows the primary that is written.
pub(super) async fn apply(link: &mut Link, directives: &[Directive]) -> Result<(), EngineError> {
    let (tls, others): (Vec<_>, Vec<_>) = directives
        .iter()
        .filter(|directive| is_live(known(), &directive.name))
        .partition(|directive| TLS_FILES.iter().any(|(name, _)| *name == directive.name));
    // Certificate and key are read together, or they would not fit each other in between.
    set(link, "certificate", &tls).await?;
    for directive in others {
        set(link, &directive.name, &[directive]).await?;
    }
    if let Some(followed) = directives.iter().find(|directive| directive.name == "replicaof") {
        follow(link, &followed.args).await?;
    }
    Ok(())
}

async fn set(link: &mut Link, what: &str, directives: &[&Directive]) -> Result<(), EngineError> {
    let mut command = cmd("CONFIG");
    command.arg("SET");
    for directive in directives {
        command.arg(&directive.name).arg(directive.args.join(" "));
    }
    link.ask(&format!("set {what}"), &command).await
}

async fn follow(link: &mut Link, to: &[String]) -> Result<(), EngineError> {
    let now = info(link).await?;
    let same = [now.text("master_host"), now.text("master_port")]
        == [0, 1].map(|at| to.get(at).map_or("", String::as_str));
    if now.is_primary() || !same {
        let mut command = cmd("REPLICAOF");
        link.ask::<()>("follow another primary", command.arg(to)).await?;
    }
    Ok(())
}

/// Brings users into force. Connections that are open stay.
pub(super) async fn set_users(link: &mut Link, users: &[User]) -> Result<(), EngineError> {
    for user in users {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg(&user.name).arg(&user.rules);
        link.ask::<()>(&format!("set the user {}", user.name), &command).await?;
    }
    Ok(())
}

/// Parameters that are written and wait for a restart.
pub(super) async fn pending(link: &mut Link, directives: &[Directive]) -> Result<Vec<String>, EngineError> {
    let Some(known) = known() else { return Ok(Vec::new()) };
    let mut waiting = Vec::new();
    let parameters = directives.iter().filter(|directive| known.parameters.contains_key(&directive.name));
    for directive in parameters.filter(|directive| !is_live(Some(known), &directive.name)) {
        let mut command = cmd("CONFIG");
        command.arg("GET").arg(&directive.name);
        let found: Vec<String> = link.ask("ask for the configuration", &command).await?;
        let value = directive.args.first();
        if let [_, runs] = found.as_slice()
            && ours(&directive.name)
            && !known.same_value(&directive.name, Some(runs), value)
        {
            waiting.push(directive.name.clone());
        }
    }
    Ok(waiting)
}

/// Whether a parameter may differ: those that Culvert fixes are the same in every file that it writes.
fn ours(name: &str) -> bool {
    known()
        .and_then(|engine| engine.parameters.get(name))
        .is_some_and(|parameter| parameter.apply != culvert_engines::Apply::Fixed)
}

/// The record that came with the data; `None` when there is none, or a foreign value.
pub(super) async fn record(link: &mut Link) -> Result<Option<Record>, EngineError> {
    let mut command = cmd("GET");
    let text: Option<String> = link.ask("read the record", command.arg(KEY)).await?;
    Ok(text.as_deref().and_then(Record::read))
}

/// Writes the record: proof that the engine takes writes.
pub(super) async fn set_record(link: &mut Link, record: &Record) -> Result<(), EngineError> {
    let mut command = cmd("SET");
    link.ask("write the record", command.arg(KEY).arg(record.write())).await
}
