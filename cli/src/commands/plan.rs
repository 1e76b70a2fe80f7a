//! A plan for people: what will change, what it interrupts, what speaks against it.

use super::view::{plain, text_at};
use crate::failure::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output::{Cell, Format, Table, Tone, Tree};

/// Shows a plan; a plan with faults is a failure that names each.
pub(crate) fn show(run: &Invocation, plan: &Tree) -> Result<(), Failure> {
    // The plan itself, or an answer that holds it.
    let plan = plan.get("plan").unwrap_or(plan);
    if !matches!(run.out.format, Format::Table | Format::Wide) {
        return run.out.answer(plan, &Table::default(), &[]);
    }
    let list = |key| plan.get(key).map(Tree::list).unwrap_or_default();
    for warning in list("warnings") {
        run.out.notice(&format!("warning: {}", sentence(warning)));
    }
    let faults = list("faults");
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    if list("changes").is_empty() {
        run.out.note("nothing changes");
        return Ok(());
    }
    run.out.data(&run.out.text_of(&changes(list("changes"))))?;
    run.out.note(&summary(plan));
    Ok(())
}

fn changes(changes: &[Tree]) -> Table {
    let mut table = Table::new(&["FIELD", "FROM", "TO", "EFFECT"], &["NOTE"]);
    for change in changes {
        let value = |key: &str| Cell::new(change.get(key).map(plain).unwrap_or_default());
        let effect = effect_of(change);
        let tone =
            if matches!(effect, "none" | "reload" | "grow" | "new") { Tone::Good } else { Tone::Warning };
        table.row([value("field"), value("from"), value("to"), Cell::toned(effect, tone), value("note")]);
    }
    table
}

/// What a change costs; making what was not there costs nothing.
fn effect_of(change: &Tree) -> &str {
    match text_at(change, "effect") {
        "recreate" if text_at(change, "from").is_empty() => "new",
        effect => effect,
    }
}

fn summary(plan: &Tree) -> String {
    let interruption = plan.get("interruption").map(|value| match value {
        Tree::Map(_) => {
            let number = |key| plain(value.get(key).unwrap_or(&Tree::Null));
            let (low, high) = (number("low"), number("high"));
            if high.is_empty() { plain(value) } else { format!("{low} to {high} seconds") }
        }
        other => plain(other),
    });
    let said = text_at(plan, "summary");
    match interruption.filter(|text| !text.is_empty() && text != "none") {
        Some(interruption) if !said.contains("second") => format!("{said}; interrupted for {interruption}"),
        _ => said.to_owned(),
    }
}

fn refused(faults: &[Tree]) -> Failure {
    let mut failure = Failure::new(Exit::Usage, "this cannot be carried out");
    failure.fields =
        faults.iter().map(|fault| (text_at(fault, "field").to_owned(), sentence(fault))).collect();
    failure.next =
        faults.iter().map(|fault| text_at(fault, "next")).find(|next| !next.is_empty()).map(str::to_owned);
    failure
}

/// The sentence of a fault or a warning, which may be plain text.
fn sentence(said: &Tree) -> String {
    match said {
        Tree::Text(text) => text.clone(),
        said => text_at(said, "message").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_the_interruption() {
        let plan = |text: &str| Tree::from_json(text.as_bytes()).unwrap();
        let restart = plan(r#"{"summary":"one change","interruption":{"low":2,"high":10}}"#);
        assert_eq!(summary(&restart), "one change; interrupted for 2 to 10 seconds");
        assert_eq!(summary(&plan(r#"{"summary":"one change","interruption":null}"#)), "one change");
    }

    #[test]
    fn what_is_made_is_new_and_not_made_anew() {
        let change = |text: &str| effect_of(&Tree::from_json(text.as_bytes()).unwrap()).to_owned();
        assert_eq!(change(r#"{"field":"version","to":"17.12","effect":"recreate"}"#), "new");
        assert_eq!(
            change(r#"{"field":"storage.class","from":"a","to":"b","effect":"recreate"}"#),
            "recreate"
        );
    }

    #[test]
    fn every_fault_is_named() {
        let faults = Tree::from_json(br#"[{"field":"spec.version","message":"there is no 99","next":"use 17"},{"field":"x","message":"y"}]"#).unwrap();
        let failure = refused(faults.list());
        assert_eq!(failure.fields.len(), 2);
        assert_eq!(failure.next.as_deref(), Some("use 17"));
    }
}
