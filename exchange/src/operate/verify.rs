//! `exchange verify`: many licenses are verified in one call, and the report is kept.
//!
//! A relying party runs it. A crash leaves a temporary file, never a part under the report's name; the same call with its key gives
//! the same answers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ring::rand::{SecureRandom as _, SystemRandom};
use verifier::command::{self, EXIT_CANNOT_TELL, EXIT_DONE, EXIT_NO};
use verifier::report::Verdict;

use super::{Caller, runtime};
use crate::calling;
use crate::exit::Exit;
use crate::files;

/// Ten thousand refusals at the usual budget of 50 a second take less.
const WITHIN: Duration = Duration::from_secs(600);

/// Most lines that are said to be refused or not decided.
const MOST_SAID: usize = 20;

/// The end of the command's help.
pub const HELP: &str = "\
A line of the file is a request of POST /v1/verify: license, use, and grant or expect where they are wanted. Each line has a decision, an
entry and a receipt of its own. The status is 1 when a line was refused or not decided: the report says which and why. It is 2 when the report
was kept, and nobody can tell yet that it is genuine.
Example:
  exchange verify customers.ndjson --out report.ndjson --as bank
  verifier report report.ndjson --request customers.ndjson --trust trust-bundle.note --anchor KEY";

/// A batch of verifications.
#[derive(Args)]
pub struct Verifying {
    /// The requests of `POST /v1/verify`, JSON, one a line; at most 10,000.
    file: PathBuf,
    /// The file to make with the report.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The idempotency key of an earlier run that got no whole report; within 24 hours it goes on with it.
    #[arg(long, value_name = "KEY")]
    again: Option<String>,
    #[command(flatten)]
    caller: Caller,
}

/// Verifies the licenses of a file, and keeps the report.
///
/// # Errors
/// The file cannot be read, or the exchange gives no whole report.
pub fn run(verifying: &Verifying) -> anyhow::Result<u8> {
    let Verifying { file, out, again, caller } = verifying;
    let body = files::read(file)?;
    if out.exists() {
        return Err(Exit::usage(format_args!("{} is there already", out.display())));
    }
    let out = std::path::absolute(out)?;
    let folder = out.parent().unwrap_or(Path::new("."));
    let name = caller.named()?;
    // Known before anything is sent: whatever ends the run, the same key goes on.
    let key = match again {
        Some(key) => key.clone(),
        None => {
            let mut fresh = [0; 16];
            SystemRandom::new().fill(&mut fresh).map_err(|_| anyhow::anyhow!("no randomness"))?;
            hex::encode(fresh)
        }
    };
    command::note(format_args!("if it is cut off, --again {key} goes on with it"));
    let asked = runtime()?.block_on(async {
        let client = caller.connect(name).await?;
        anyhow::Ok(client.verify_batch(body, Some(key), WITHIN).await)
    })?;
    let keep = |answer: &[u8]| keep(folder, &out, answer);
    let report = match asked {
        // The bytes may be proven later; as they are now nobody can tell.
        Err(client::Error::Unproven(unproven)) if unproven.report.verdict == Verdict::Unknown => {
            keep(&unproven.exchanged.answer)?;
            let reasons = unproven.report.reasons.iter().map(|finding| finding.reason.to_string());
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            command::note(format_args!("the report is kept, and cannot be told to be genuine: {reasons}"));
            return Ok(EXIT_CANNOT_TELL);
        }
        asked => asked.map_err(calling::ended)?,
    };
    keep(&report.exchanged.answer)?;
    let unanswered = (1..).zip(&report.answers);
    let mut unanswered = unanswered.filter_map(|(line, answer)| Some((line, answer.as_ref().err()?)));
    for (line, problem) in unanswered.by_ref().take(MOST_SAID) {
        let code = problem.code.as_deref().unwrap_or("no answer");
        let errors = problem.errors.iter().map(|fault| format!("\n  {fault}"));
        command::note(format_args!("line {line}: {code}{}", errors.collect::<String>()));
    }
    let untold = unanswered.count();
    if untold > 0 {
        command::note(format_args!("and {untold} more lines, which the report shows"));
    }
    let end = report.end;
    command::line(serde_json::to_string(&end)?);
    Ok(if end.permitted == end.lines { EXIT_DONE } else { EXIT_NO })
}

/// Keeps a report: readable by its owner alone, and gone again when dropped before it has its name.
fn keep(folder: &Path, out: &Path, answer: &[u8]) -> anyhow::Result<()> {
    let mut kept = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    kept.write_all(answer)?;
    kept.as_file().sync_all()?;
    kept.persist_noclobber(out).map_err(|error| error.error).with_context(|| out.display().to_string())?;
    Ok(())
}
