//! How late answers are at half of what the exchange keeps up with, beside what its disk alone takes for the same bytes at the
//! same rate of groups.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Plan;
use super::measure::{Contender, Measured, Pace, measure};
use crate::drive::{Arrivals, Rate};
use crate::journal;
use crate::process;
use crate::report::BareReport;
use verifier::command;

/// Shares of the closed loop's maximum that are tried one after another, up to the first that is not kept up with.
const STEPS: [f64; 8] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// So often a void run is made once more.
const VOID_RUNS: usize = 2;
/// The bare appends take this part of the long run's time.
const BARE_SHARE: u32 = 4;
/// The 99th percentile that must be held: so many times the bare one, and so many ms.
const FLOOR: [f64; 2] = [2.0, 5.0];
/// The one that is wanted.
const GOAL: [f64; 2] = [2.0, 1.0];
/// And at most this, ms.
const GOAL_MOST: f64 = 10.0;

/// The exchange at half of its knee.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Half {
    /// The highest step that was kept up with, answers a second.
    pub knee: f64,
    /// Half of it, requests a second.
    pub offered: f64,
    /// For how long, seconds.
    pub seconds: f64,
    /// Median latency, ms.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The disk alone, with frames as long as the run's at the rate of its groups.
    pub bare: BareReport,
    /// The 99th percentile that must be held, ms.
    pub floor: f64,
    /// The one that is wanted.
    pub goal: f64,
}

impl Half {
    fn limits(bare_p99: f64) -> [f64; 2] {
        let limit = |[times, more]: [f64; 2]| times * bare_p99 + more;
        [limit(FLOOR), limit(GOAL).min(GOAL_MOST)]
    }
}

/// Finds the knee and stays at half of it; `most` is what the closed loop reaches, `folder` the exchange's. The inner error is why
/// there is no number.
///
/// # Errors
/// The exchange is gone, or its journal cannot be read.
pub(super) fn run(
    contender: &mut Contender,
    folder: &Path,
    most: f64,
    plan: &Plan,
) -> anyhow::Result<Result<Half, String>> {
    let pace = |rate, duration| Pace {
        duration,
        ..plan.pace(Arrivals::Open { rate: Rate::Constant(rate), poisson: true })
    };
    let mut knee = None;
    for share in STEPS {
        let rate = most * share;
        match measured(contender, &pace(rate, plan.duration))? {
            Measured::Run(_) => knee = Some(rate),
            Measured::Behind(_) => break,
            // Where the generator ends, what the exchange could keep up with is not known.
            Measured::Void(why) => return Ok(Err(format!("void: {why}"))),
            Measured::Wrong(why) => return Ok(Err(format!("no number: {why}"))),
        }
        command::note(format_args!("  {rate:.0}/s is kept up with"));
    }
    let Some(knee) = knee else { return Ok(Err("not even the first step is kept up with".to_owned())) };
    let (journal, offered) = (folder.join("journal"), knee / 2.0);
    let before = journal::frames(&journal, 0..u64::MAX)?;
    let run = match measured(contender, &pace(offered, plan.long))? {
        Measured::Run(run) => run,
        Measured::Behind(why) => return Ok(Err(format!("not kept up with: {why}"))),
        Measured::Wrong(why) => return Ok(Err(format!("no number: {why}"))),
        Measured::Void(why) => return Ok(Err(format!("void: {why}"))),
    };
    let written = journal::frames(&journal, 0..u64::MAX)?.since(&before);
    let groups_a_second = written.frames as f64 / (plan.warm_up + plan.long).as_secs_f64();
    let bare = bare(folder, &written, groups_a_second, plan.long / BARE_SHARE, plan.server_core)?;
    let [floor, goal] = Half::limits(bare.latency_ms.p99);
    Ok(Ok(Half {
        knee,
        offered,
        seconds: plan.long.as_secs_f64(),
        p50: run.p50,
        p99: run.p99,
        bare,
        floor,
        goal,
    }))
}

/// Measures; once more when the run is void, twice at most: what a processor's other users do in one run of many is no reason to
/// have no number.
fn measured(contender: &mut Contender, pace: &Pace) -> anyhow::Result<Measured> {
    for _ in 0..VOID_RUNS {
        match measure(contender, pace)? {
            Measured::Void(why) => command::note(format_args!("  void: {why}")),
            other => return Ok(other),
        }
    }
    measure(contender, pace)
}

/// On the server's processor, which has nothing else to do then.
fn bare(
    folder: &Path,
    frames: &journal::Frames,
    a_second: f64,
    duration: Duration,
    core: usize,
) -> anyhow::Result<BareReport> {
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            process::pin(core)?;
            BareReport::measure(folder, frames, Some(a_second), duration)
        });
        Ok(appending.join().map_err(|_| anyhow::anyhow!("the bare appends failed"))??)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_disk_and_the_goal_ends_at_ten_ms() {
        let [floor, goal] = Half::limits(0.5);
        assert!((floor - 6.0).abs() < 1e-9 && (goal - 2.0).abs() < 1e-9);
        let [floor, goal] = Half::limits(20.0);
        assert!((floor - 45.0).abs() < 1e-9 && (goal - 10.0).abs() < 1e-9);
    }
}
