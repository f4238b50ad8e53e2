//! A license that is changed was read: `Found` is made by a case alone.

use exchange::gateway::case::Found;
use exchange::gateway::change::Change;
use ledger::{Key, License};

fn change(change: &mut Change<'_>, key: Key, license: License) {
    change.license(&Found { key, license, same_number: 1 }, |next| next);
}

fn main() {
    let _ = change;
}
