//! One holder, one label: two receipts that show different labels for the same person expose a log that keeps a second
//! sequence for somebody, out of sight of the holder's own trace.
//!
//! Their requests tie both receipts to one holder, for they name the holder in clear; only who sent them has them. A
//! receipt counts where its request decides whose label it must show: the holder of a license named by number, and the
//! holder that a portal names in a search, a grant, or a trace.
//!
//! Pure functions; nothing to lose.

use crate::{
    json,
    leaf::{Labels, Open},
    receipt::{self, Receipt},
    report::{Reason, Report, Verdict},
    trust::Trust,
};
use schemas::{codes::Decision, holder::HolderRef, routes::Route};

/// A receipt with the request it is for.
#[derive(Clone, Debug)]
pub struct Side {
    /// The receipt.
    pub receipt: Receipt,
    /// The request body as it was sent.
    pub request: Option<Vec<u8>>,
}

/// Compares the labels of two receipts of one holder. Invalid when they show no label in common; cannot tell when
/// nothing ties both to one holder.
pub fn verify(one: &Side, two: &Side, trust: &Trust, at: u64) -> Report {
    let mut report = Report::new(trust, at);
    let mut sides = Vec::new();
    for side in [one, two] {
        let own = receipt::verify(&side.receipt, side.request.as_deref(), None, trust, at);
        // Without a proof a receipt is the exchange's word all the same only once its leaf is found in the log.
        if own.verdict != Verdict::Valid {
            for finding in own.reasons {
                report.add(finding.reason, finding.detail);
            }
            return report;
        }
        let Some(named) = named(side) else {
            report.add(Reason::NothingTies, "a request is missing, or does not decide whose label is shown");
            return report;
        };
        sides.push((named, &side.receipt.log));
    }
    report.checked.extend(["leaf", "request", "checkpoint", "inclusion"]);
    match sides.as_slice() {
        [((a, labels_a), log_a), ((b, labels_b), log_b)] if a == b && log_a == log_b => {
            if labels_a.iter().any(|label| labels_b.contains(label)) {
                report.checked.push("label");
            } else {
                report.add(Reason::TwoLabels, "the log has two labels for one holder");
            }
        }
        _ => report.add(Reason::NothingTies, "the requests name different holders, or are of different logs"),
    }
    report
}

/// The holder that the request of a permit names, and the labels that the permit shows.
fn named(side: &Side) -> Option<(HolderRef, Vec<[u8; 16]>)> {
    let open = Open::parse(&side.receipt.open).ok()?;
    let request = json::read(side.request.as_deref()?).ok()?;
    let holder = match Route::from_number(open.route)? {
        Route::Search | Route::GrantCreate | Route::GrantRevoke | Route::Trace => request.get("holder")?,
        Route::Verify | Route::Retrieve => request.get("license")?.get("holder")?,
        _ => return None,
    };
    let (type_code, number) = (holder.get("typeCode")?.as_str()?, holder.get("number")?.as_str()?);
    // The exchange took the request; whether under a registrar's mark is no part of who the holder is.
    let holder = HolderRef::as_registered(type_code, number).ok()?;
    match open.labels {
        Labels::List(labels) if open.decision == Decision::Permit.number() && !labels.is_empty() => {
            Some((holder, labels))
        }
        _ => None,
    }
}
