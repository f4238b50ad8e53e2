//! `exchange retention`: which uses were destroyed with the end of their period, and which are on a day.
//!
//! An operator runs it, beside a serving exchange too. It reads the journal alone, so a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use ledger::record::Record;
use ledger::{DocumentKind, Entry, KeyName, Label, USES};
use schemas::date::{Date, rfc3339};
use serde::Serialize;
use verifier::command;

use super::Place;
use crate::capability::operators::Hold;
use crate::exit::Exit;
use crate::gateway::retention::period;
use crate::moment::now_ms;
use crate::opening;
use crate::participant::Rules;

/// A question what is kept and what was destroyed.
#[derive(Args)]
pub struct Retaining {
    #[command(flatten)]
    place: Place,
    /// The day, China Standard Time, such as 2033-01-01. Default today.
    #[arg(long, value_name = "DATE")]
    at: Option<String>,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

/// The keys of a year of uses.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Year {
    /// Those that exist.
    keys: usize,
    /// Those of them whose holder is under a legal hold.
    held: usize,
    /// Those that the next change of epoch behind the day destroys.
    due: usize,
}

/// An entry that destroyed keys: `verifier audit` proves which by a page of `exchange log export`.
#[derive(Debug, Serialize)]
struct Destroyed {
    index: u64,
    time: String,
    year: u16,
    keys: usize,
}

#[derive(Debug, Serialize)]
struct Plan {
    at: String,
    years: BTreeMap<u16, Year>,
    destroyed: Vec<Destroyed>,
}

/// The keys of uses and what keeps them, as the journal has them.
#[derive(Default)]
struct Kept {
    keys: BTreeSet<(u16, Label)>,
    held: BTreeSet<Label>,
    destroyed: Vec<Destroyed>,
    rules: Option<Rules>,
}

impl Kept {
    fn apply(&mut self, index: u64, time_ms: u64, record: &Record) {
        let born = record.new_holders.iter().map(|new| new.name());
        let born = born.chain(record.new_keys.iter().map(|new| new.name));
        self.keys.extend(born.filter(|name| name.class == USES).map(|name| (name.year, name.label)));
        for document in &record.documents {
            if document.kind == DocumentKind::Rules.number() {
                self.rules = serde_json::from_slice(&document.value).ok();
            }
            if document.kind == DocumentKind::Hold.number() {
                let over = serde_json::from_slice::<Hold>(&document.value).is_ok_and(|hold| !hold.held);
                if over {
                    self.held.remove(&document.key)
                } else {
                    self.held.insert(document.key)
                };
            }
        }
        let gone = record.destroyed.iter().filter(|name| name.class == USES);
        let mut counts = BTreeMap::<u16, usize>::new();
        for KeyName { label, year, .. } in gone {
            self.keys.remove(&(*year, *label));
            *counts.entry(*year).or_default() += 1;
        }
        let entry = |(year, keys)| Destroyed { index, time: rfc3339(time_ms), year, keys };
        self.destroyed.extend(counts.into_iter().map(entry));
        if !record.erased.is_empty() {
            self.keys.retain(|(_, label)| !record.erased.contains(label));
        }
    }

    fn plan(self, at: Date, uses_years: u16) -> Plan {
        let year = u16::try_from(at.civil().0).unwrap_or(0);
        let uses_years = self.rules.as_ref().map_or(uses_years, |rules| period(uses_years, rules));
        let mut years = BTreeMap::<u16, Year>::new();
        for (of, label) in self.keys {
            let counts = years.entry(of).or_default();
            let held = self.held.contains(&label);
            counts.keys += 1;
            counts.held += usize::from(held);
            counts.due += usize::from(!held && is_over(of, uses_years, year));
        }
        Plan { at: at.to_string(), years, destroyed: self.destroyed }
    }
}

/// Whether the period of a year's uses is over in another year.
fn is_over(year: u16, uses_years: u16, now: u16) -> bool {
    year.saturating_add(uses_years) < now
}

/// Reads the journal, and says what there is.
///
/// # Errors
/// The day is none, or the journal cannot be read.
pub fn run(retaining: &Retaining) -> anyhow::Result<()> {
    let config = retaining.place.load()?;
    let at = match &retaining.at {
        Some(text) => text.parse().map_err(|_| Exit::usage(format_args!("{text} is no day")))?,
        None => Date::at(i64::try_from(now_ms() / 1_000)?),
    };
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    let mut kept = Kept::default();
    ledger::entries(opening::ledger_options(&config), keys, |entry: Entry| {
        kept.apply(entry.open.index, entry.open.time_ms, &entry.record);
    })?;
    let plan = kept.plan(at, config.keys.uses_years);
    if retaining.json {
        command::line(serde_json::to_string(&plan)?);
        return Ok(());
    }
    for Destroyed { index, time, year, keys } in &plan.destroyed {
        command::line(format_args!(
            "entry {index}, {time}: the uses of {year} of {keys} holders were destroyed"
        ));
    }
    for (year, Year { keys, held, due }) in &plan.years {
        command::line(format_args!(
            "uses of {year}: {keys} holders, {held} under legal hold; due on {}: {due}",
            plan.at
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::record::{DocumentState, NewKey};

    fn born(label: u8, year: u16, class: u8) -> NewKey {
        NewKey { name: KeyName { label: [label; 16], class, year }, epoch: 1, wrapped: [0; 60] }
    }

    #[test]
    fn a_hold_keeps_what_is_due_a_delay_does_not_and_what_is_destroyed_is_listed() {
        let mut kept = Kept::default();
        let keys = (1..=4).map(|label| born(label, 2026, USES));
        let record = Record {
            new_keys: keys.chain([born(1, 2027, USES), born(5, 2026, ledger::STANDARD)]).collect(),
            ..Record::default()
        };
        kept.apply(0, 0, &record);
        let hold = |held: bool| DocumentState {
            kind: DocumentKind::Hold.number(),
            key: [2; 16],
            value: serde_json::to_vec(&Hold { held }).expect("JSON"),
            ..DocumentState::default()
        };
        kept.apply(1, 0, &Record { documents: vec![hold(true)], ..Record::default() });
        kept.apply(2, 0, &Record { release_ms: 9, concerned: vec![[3; 16]], ..Record::default() });
        let gone = KeyName { label: [4; 16], class: USES, year: 2026 };
        kept.apply(3, 0, &Record { destroyed: vec![gone], ..Record::default() });
        let plan = kept.plan("2032-01-01".parse().expect("a day"), 5);
        let Year { keys, held, due } = plan.years[&2026];
        assert_eq!((keys, held, due), (3, 1, 2));
        assert_eq!((plan.years[&2027].keys, plan.years[&2027].due), (1, 0));
        let Destroyed { index, year, keys, .. } = &plan.destroyed[0];
        assert_eq!((*index, *year, *keys, plan.destroyed.len()), (3, 2026, 1, 1));
        let mut slow = Kept::default();
        slow.apply(0, 0, &Record { new_keys: vec![born(1, 2026, USES)], ..Record::default() });
        let rules = serde_json::to_vec(&Rules { delay_days_max: 400 }).expect("JSON");
        let rules =
            DocumentState { kind: DocumentKind::Rules.number(), value: rules, ..DocumentState::default() };
        slow.apply(1, 0, &Record { documents: vec![rules], ..Record::default() });
        assert_eq!(
            slow.plan("2028-06-01".parse().expect("a day"), 0).years[&2026].due,
            0,
            "a use may still be delayed"
        );
        assert!(!is_over(2026, 5, 2031) && is_over(2026, 5, 2032));
        assert_eq!(ledger::cst_year(1_798_732_800_000), 2027, "midnight in China");
    }
}
