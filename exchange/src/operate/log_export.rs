//! `exchange log export`.
//!
//! An auditor runs it. A crash leaves a temporary file, never a part under the file's name.

use std::path::Path;

use crate::exit::Exit;
use crate::export;
use anyhow::Context as _;
use verifier::command;

use super::{Caller, json_file, runtime};

/// Writes all pages of an auditor's query to a file that appears whole or not at all.
pub fn run(query: &Path, out: &Path, auditor: &Caller) -> anyhow::Result<()> {
    let query = json_file(query)?;
    if out.exists() {
        return Err(Exit::usage(format_args!("{} is there already", out.display())));
    }
    let out = std::path::absolute(out)?;
    let folder = out.parent().unwrap_or(&out);
    let (pages, entries) = runtime()?.block_on(async {
        let client = auditor.connect("auditor").await?;
        // Readable by its owner alone, and gone again when dropped before it has its name.
        let mut file =
            tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
        let counts = export::pages(&client, query, file.as_file_mut()).await?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&out)
            .map_err(|error| error.error)
            .with_context(|| out.display().to_string())?;
        anyhow::Ok(counts)
    })?;
    command::line(format_args!("{}: {entries} entries in {pages} pages", out.display()));
    Ok(())
}
