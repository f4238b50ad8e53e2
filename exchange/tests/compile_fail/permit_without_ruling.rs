//! A permit is what the path makes of a ruling.

use exchange::gateway::permit::Permit;

fn main() {
    let _ = Permit { granted: () };
}
