//! Sealed records are read with a disclosure, which comes with a permit.

use exchange::gateway::permit::Disclosure;

fn main() {
    let _ = Disclosure(());
}
