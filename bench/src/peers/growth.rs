//! The exchange with few licenses and with many, asked the same in turn.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Runtime;

use super::exchange::Exchange as RunningExchange;
use super::measure::drive_one;
use super::{At, Plan, Results, Who, exchange};
use crate::drive::{Arrivals, Endpoint, Protocol};
use crate::folder::organisation;
use crate::mix::Mix;
use crate::population::Population;
use crate::run;
use crate::scenario::{Exchange, Operation, Share};
use verifier::command;

/// Licenses of the small one.
const FEW: u64 = 1_000;
/// How much more popular the first licenses are than the others, as everywhere in the comparison.
const POPULARITY: f64 = 1.0;

/// One exchange with its population.
struct Grown {
    who: Who,
    folder: PathBuf,
    server: RunningExchange,
    endpoint: Endpoint,
    mix: Mix,
    trust: verifier::trust::Trust,
}

impl Grown {
    fn start(plan: &Plan, who: Who, name: &str, licenses: u64) -> anyhow::Result<Self> {
        let folder = plan.folder(name)?;
        let trust = exchange::prepare(&folder, licenses, 0)?;
        let server = exchange::start(&plan.server, &["serve", "--development"], &folder, plan.server_core)?;
        let endpoint =
            run::endpoint(&folder, exchange::RELYING, server.running.address, Protocol::Http1, false)?;
        let population = Arc::new(Population::load(&folder, organisation(exchange::ISSUER)?)?);
        let verify = Share {
            operation: Operation::Verify,
            share: 1.0,
            inline_proof: false,
            machine: false,
            lines: None,
        };
        let asked = Exchange { licenses, zipf: POPULARITY, mix: vec![verify], sizes: Vec::new(), rows: 0 };
        let mix = Mix::new(&asked, population, &server.running.address.to_string())?;
        Ok(Self { who, folder, server, endpoint, mix, trust })
    }
}

/// Measures both in turn, checks the receipts that were kept, and takes the folders away; gives how many receipts were good. If
/// one of the two does not come about, neither has numbers.
///
/// # Errors
/// A receipt is not good.
pub(super) fn measure(
    plan: &Plan,
    runtime: &Runtime,
    large: u64,
    results: &mut Results,
) -> anyhow::Result<usize> {
    command::note(format_args!("{large} licenses beside {FEW}"));
    let started = Grown::start(plan, Who::Few, "few", FEW)
        .and_then(|few| Ok([few, Grown::start(plan, Who::Many, "many", large)?]));
    let mut both = match started {
        Ok(both) => both,
        Err(error) => {
            results.fail(&[Who::Few, Who::Many], &error);
            return Ok(0);
        }
    };
    super::rest(both.iter().map(|grown| &grown.server.running));
    let pace = plan.pace(Arrivals::Closed);
    for round in 0..plan.rounds {
        for grown in super::in_turn(&mut both, round) {
            let processes = grown.server.running.processes();
            let measured = drive_one(&grown.endpoint, Protocol::Http1, &processes, &mut grown.mix, &pace);
            super::say(grown.who, &measured);
            results.note(grown.who, At::Most, measured);
        }
    }
    let mut receipts = 0;
    for Grown { who, folder, server, mix, trust, .. } in both {
        if !results.missing.contains_key(&who) {
            let kept = mix.keep.right;
            let checked = server.check(runtime, &kept, results.answers(&[who]), &trust);
            receipts += checked.with_context(|| who.title().to_owned())?;
        }
        drop(server);
        // Its room is wanted now; what is left of it goes with the comparison's folder.
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(receipts)
}
