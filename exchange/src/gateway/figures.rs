//! Figures of data sharing for `/metrics`, counted from all applications.
//!
//! Called by the ticker once a minute. It reads, so a crash leaves nothing.

use ledger::{DocumentKind, Ledger};
use metrics::gauge;

use super::Gateway;
use crate::sharing::application::Application;
use crate::sharing::clock::{CONNECTED_WITHIN_DAYS, calendars, day_of, working_days};

const APPLICATIONS: &str = "miaoxiang_applications";

impl Gateway {
    /// Sets the figures of applications, on a thread that may block.
    pub async fn count_applications(&self) {
        let (ledger, now_ms) = (self.ledger.clone(), self.now_ms());
        let counted = tokio::task::spawn_blocking(move || counts(&ledger, now_ms));
        let Ok(counts) = counted.await else { return };
        for (label, count) in counts {
            gauge!(APPLICATIONS, "what" => label).set(count as f64);
        }
    }
}

fn counts(ledger: &Ledger, now_ms: u64) -> [(&'static str, u64); 5] {
    let calendars = calendars(ledger);
    let [mut all, mut by_rule, mut settled, mut in_time, mut overdue] = [0_u64; 5];
    for (_, document) in ledger.state().documents(DocumentKind::Application) {
        let Ok(application) = serde_json::from_slice::<Application>(&document.value) else { continue };
        all += 1;
        by_rule += u64::from(application.rule.is_some());
        overdue += u64::from(application.clock.as_ref().is_some_and(|clock| clock.is_over(now_ms)));
        let Some(settled_ms) = application.settled_ms() else { continue };
        settled += 1;
        let days = working_days(day_of(application.made_ms), day_of(settled_ms), &calendars);
        in_time += u64::from(days.is_some_and(|days| days <= CONNECTED_WITHIN_DAYS));
    }
    [
        ("all", all),
        ("granted-by-rule", by_rule),
        ("settled", settled),
        ("within-three-days", in_time),
        ("overdue", overdue),
    ]
}
