//! Contexts: list, use, get, delete. All local.

use clap::{Args, Subcommand};

use crate::context::{self as contexts, Context as Stored, Contexts};
use crate::credential;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tone, Tree};

/// Controllers that this machine knows
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  culvert context list\n  culvert context use factory")]
pub(crate) enum Context {
    List(List),
    Use(Use),
    Get(Get),
    Delete(Delete),
}

/// List the contexts
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert context list\n  culvert context list -o name"
)]
pub(crate) struct List {}

/// Make a context the current one
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert context use factory")]
pub(crate) struct Use {
    /// The context
    name: String,
}

/// Show a context
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert context get\n  culvert context get factory -o json")]
pub(crate) struct Get {
    /// The context; the current one when left out
    name: Option<String>,
}

/// Forget a context and its session
#[derive(Args)]
#[command(after_help = "Examples:\n  culvert context delete factory\n  culvert context delete factory --yes")]
pub(crate) struct Delete {
    /// The context
    name: String,
}

pub(crate) async fn run(run: &Invocation, command: Context) -> Result<(), Failure> {
    match command {
        Context::List(_) => list(run),
        Context::Use(args) => switch(run, &args.name),
        Context::Get(args) => get(run, args.name.as_deref()),
        Context::Delete(args) => delete(run, &args.name).await,
    }
}

fn list(run: &Invocation) -> Result<(), Failure> {
    let all = run.store.load()?;
    let mut table =
        Table::new(&["CURRENT", "NAME", "CONTROLLER", "USER", "SESSION"], &["ORGANISATION", "PIN"]);
    for (name, context) in &all.contexts {
        table.row([
            Cell::new(if all.current.as_ref() == Some(name) { "*" } else { " " }),
            Cell::new(name),
            Cell::new(&context.url),
            Cell::from(context.user.as_ref()),
            session(run, name, context),
            Cell::from(context.organisation.as_ref()),
            Cell::new(&context.pin),
        ]);
    }
    if all.contexts.is_empty() && run.out.for_people() {
        run.out.note("no context yet; next: culvert login URL");
        return Ok(());
    }
    let names: Vec<String> = all.contexts.keys().cloned().collect();
    let items = all.contexts.iter().map(|(name, context)| tree(&all, name, context)).collect();
    run.out.answer(&Tree::map([("items", Tree::List(items))]), &table, &names)
}

/// Until when, or that there is none.
fn session(run: &Invocation, name: &str, context: &Stored) -> Cell {
    match run.store.token(name) {
        Ok(Some(_)) => match &context.signed_in_until {
            Some(until) => Cell::new(format!("until {}", run.out.clock.show(until))),
            None => Cell::toned("yes", Tone::Good),
        },
        Ok(None) => Cell::toned("none", Tone::Faint),
        Err(_) => Cell::toned("unreadable", Tone::Bad),
    }
}

fn tree(all: &Contexts, name: &str, context: &Stored) -> Tree {
    let text = |text: &Option<String>| text.as_deref().map_or(Tree::Null, Tree::from);
    Tree::map([
        ("name", Tree::from(name)),
        ("current", Tree::Bool(all.current.as_deref() == Some(name))),
        ("url", Tree::from(context.url.as_str())),
        ("server_name", text(&context.server_name)),
        ("pin", Tree::from(context.pin.as_str())),
        ("user", text(&context.user)),
        ("organisation", text(&context.organisation)),
        ("signed_in_until", text(&context.signed_in_until)),
    ])
}

fn switch(run: &Invocation, name: &str) -> Result<(), Failure> {
    run.store.update(|all| {
        if !all.contexts.contains_key(name) {
            return Err(contexts::unknown(name));
        }
        all.current = Some(name.to_owned());
        Ok(())
    })?;
    run.out.note(&format!("the current context is {name}"));
    Ok(())
}

fn get(run: &Invocation, name: Option<&str>) -> Result<(), Failure> {
    let (name, context) = run.store.choose(name.or(run.globals.context.as_deref()))?;
    let all = run.store.load()?;
    let mut table = Table::facts();
    table.fact("name", Cell::new(&name));
    table.fact("current", Cell::new(if all.current.as_ref() == Some(&name) { "yes" } else { "no" }));
    table.fact("controller", Cell::new(&context.url));
    table.fact("server name", Cell::from(context.server_name.as_ref()));
    table.fact("pin", Cell::new(&context.pin));
    table.fact("user", Cell::from(context.user.as_ref()));
    table.fact("organisation", Cell::from(context.organisation.as_ref()));
    table.fact("session", session(run, &name, &context));
    table.fact("file", Cell::new(run.store.path().to_string_lossy()));
    run.out.answer(&tree(&all, &name, &context), &table, &[name])
}

async fn delete(run: &Invocation, name: &str) -> Result<(), Failure> {
    if !run.store.load()?.contexts.contains_key(name) {
        return Err(contexts::unknown(name));
    }
    run.confirm(&format!("Forget the context {name} and its session?")).await?;
    if let Ok(Some(token)) = run.store.token(name) {
        credential::forget(&run.store, name, &token);
    }
    run.store.forget_token(name)?;
    run.store.update(|all| {
        all.contexts.remove(name);
        if all.current.as_deref() == Some(name) {
            all.current = None;
        }
        Ok(())
    })?;
    run.out
        .note(&format!("forgot {name}; the session at the controller ends by itself, or by: culvert logout"));
    Ok(())
}
