//! An answer that says something takes what the ledger gives back after its sync.

use exchange::gateway::answer::Answer;
use schemas::codes::Code;

fn main() {
    let _ = Answer { status: 200, body: Default::default(), media_type: "application/json", code: Code::Ok };
}
