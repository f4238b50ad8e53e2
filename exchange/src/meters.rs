//! All metric names of the gateway, with their labels. Labels have known, finite sets: never an identifier, a name or
//! a number of a person.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `miaoxiang_answers_total` | `route`, `code` | answers, decided or not |
//! | `miaoxiang_answer_seconds` | `route` | time from accepted request to finished answer |
//! | `miaoxiang_handshakes_total` | `listener`, `result` | TLS handshakes (`server.rs`) |
//! | `miaoxiang_connections` | `listener` | open connections (`server.rs`) |
//! | `miaoxiang_panics_total` | `listener` | panics in handlers (`server.rs`) |
//! | `miaoxiang_connections_refused_total` | `listener`, `reason` | connections over a cap (`server.rs`) |
//! | `miaoxiang_connections_closed_total` | `listener`, `reason` | connections that the server closed: answers not taken, floods, GOAWAYs (`server.rs`) |
//! | `miaoxiang_requests_turned_away_total` | `listener`, `reason` | requests that a listener answers by itself (`server.rs`) |
//! | `miaoxiang_witness_submissions_total` | `witness`, `result` | checkpoints submitted (`cosign.rs`) |
//! | `miaoxiang_witness_cosigned_size` | `witness` | size that a witness cosigned last (`cosign.rs`) |
//! | `miaoxiang_journal_…`, `miaoxiang_image_…` | | the ledger |
//! | `miaoxiang_scrub_damaged_segments` | | closed segments that the ledger's scrub found damaged or gone |

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use rustc_hash::FxHashMap;
use schemas::codes::Code;
use schemas::routes::Route;

/// Bounds of the latency histograms, seconds.
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Bounds of the group size histogram, entries.
pub const GROUP_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// Handles made once, so that an answer costs no label formatting.
pub struct Meters {
    answers: FxHashMap<(u8, u16), Counter>,
    latency: FxHashMap<u8, Histogram>,
}

impl Meters {
    /// Registers every route and code with the installed recorder.
    pub fn new() -> Self {
        let mut answers = FxHashMap::default();
        let mut latency = FxHashMap::default();
        for route in Route::ALL {
            latency.insert(route.number(), histogram!("miaoxiang_answer_seconds", "route" => route.name()));
            for code in Code::ALL {
                let answer =
                    counter!("miaoxiang_answers_total", "route" => route.name(), "code" => code.name());
                answers.insert((route.number(), code.number()), answer);
            }
        }
        Self { answers, latency }
    }

    /// Counts one answer.
    pub fn answered(&self, route: Route, code: Code, took: Duration) {
        if let Some(counter) = self.answers.get(&(route.number(), code.number())) {
            counter.increment(1);
        }
        if let Some(latency) = self.latency.get(&route.number()) {
            latency.record(took.as_secs_f64());
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}
