//! A document is written where one was read: `Place` is made by a case alone.

use exchange::gateway::case::Place;
use exchange::gateway::change::Change;
use ledger::{DocumentKind, Key};

fn change(change: &mut Change<'_>, key: Key) {
    change.put(Place { kind: DocumentKind::Participant, key, version: 0 }, Vec::new());
}

fn main() {
    let _ = change;
}
