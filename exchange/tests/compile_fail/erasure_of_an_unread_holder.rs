//! A holder who is erased was found to live.

use exchange::gateway::case::Living;

fn main() {
    let _ = Living { label: [0; 16] };
}
