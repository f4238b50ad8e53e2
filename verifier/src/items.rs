//! The items to be checked: one file, the lines of a file, or the files of a folder.
//!
//! The command line alone calls it. It only reads files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
};
use verifier::{
    json::{self, JsonError},
    machine, receipt,
};

/// Where the file identifier stands in an envelope, behind size prefix and root offset.
const ENVELOPE_IDENTIFIER_OFFSET: usize = 8;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One item; of many it has a name.
pub(crate) struct Item {
    pub(crate) name: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, String> {
    let path = path.as_ref();
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file, or each file of a folder.
pub(crate) fn whole(path: &Path) -> Result<Vec<Item>, String> {
    if !path.is_dir() {
        return Ok(vec![Item { name: None, bytes: read(path)? }]);
    }
    let named = |path: &PathBuf| -> Result<Item, String> {
        Ok(Item { name: Some(path.display().to_string()), bytes: read(path)? })
    };
    files(path)?.iter().map(named).collect()
}

/// Like [`whole`]; a file with one JSON document a line is as many items.
pub(crate) fn lines(path: &Path) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    for Item { name, bytes } in whole(path)? {
        let Some(lines) = documents(&bytes) else {
            items.push(Item { name, bytes });
            continue;
        };
        let file = name.unwrap_or_else(|| path.display().to_string());
        items.extend(
            lines
                .into_iter()
                .map(|(number, line)| Item { name: Some(format!("{file}:{number}")), bytes: line.to_vec() }),
        );
    }
    Ok(items)
}

/// The files of a folder, by name. Anything else in it is refused: who reads the findings takes them for all of it.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !path.is_file() {
            return Err(format!("{}: no file; each item of a folder is one", path.display()));
        }
        found.push(path);
    }
    if found.is_empty() {
        return Err(format!("{}: no file in this folder", folder.display()));
    }
    found.sort();
    Ok(found)
}

/// The lines of a file that has two or more, each a JSON object, with their numbers.
fn documents(bytes: &[u8]) -> Option<Vec<(usize, &[u8])>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let lines: Vec<_> = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
    let is_object = |line: &[u8]| line.starts_with(b"{") && json::read(line) != Err(JsonError::Malformed);
    (lines.len() > 1 && lines.iter().all(|(_, line)| is_object(line))).then_some(lines)
}

/// Text in a file whose own signatures say what it is: a byte order mark, a carriage return before a
/// line feed, and empty lines at its end are nothing.
pub(crate) fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let end = text.trim_end_matches('\n');
    if end.len() < text.len() { format!("{end}\n") } else { text }
}

/// The bytes as they are and, if it makes a difference, without byte order mark and final newline, with the name of what
/// was left out. A line of a file with many keeps the carriage return of its newline.
pub(crate) fn variants(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Option<&'static str>)> {
    let marked = bytes.strip_prefix(BYTE_ORDER_MARK);
    let bare = marked.unwrap_or(bytes);
    let end = [&b"\r\n"[..], b"\n", b"\r"].iter().find_map(|newline| bare.strip_suffix(*newline));
    let left_out = match (marked, end) {
        (Some(_), Some(_)) => Some("the byte order mark and the final newline"),
        (Some(_), None) => Some("the byte order mark"),
        (None, Some(_)) => Some("the final newline"),
        (None, None) => None,
    };
    let bare = left_out.map(|left_out| (end.unwrap_or(bare), Some(left_out)));
    std::iter::once((bytes, None)).chain(bare)
}

/// The envelope in a file: the bytes, base64 text, or the member `envelope` of a JSON answer. Any other file is handed
/// on as it is, and found malformed.
pub(crate) fn envelope(bytes: &[u8]) -> Result<Cow<'_, [u8]>, JsonError> {
    if bytes.get(ENVELOPE_IDENTIFIER_OFFSET..).is_some_and(|rest| rest.starts_with(b"MXL1")) {
        return Ok(bytes.into());
    }
    let json = match json::read(bytes) {
        Err(JsonError::DuplicateMember) => return Err(JsonError::DuplicateMember),
        json => json.ok(),
    };
    let member = json.as_ref().and_then(|json| json.get("envelope")?.as_str());
    let text = member.map_or_else(|| bytes.trim_ascii(), |text| text.as_bytes());
    Ok(STANDARD.decode(text).map_or(Cow::Borrowed(bytes), Cow::Owned))
}

/// The answer that a receipt is for, if it is JSON.
pub(crate) fn without_receipt(answer: &[u8]) -> Cow<'_, [u8]> {
    match receipt::cut(answer) {
        Ok(_) if machine::is_answer(answer) => Cow::Borrowed(&[]),
        Ok((hashed, _)) => hashed.into(),
        Err(_) => answer.into(),
    }
}
