//! The originals of a data folder: everything else is made from them. README and `exchange/ledger/README.md` have the
//! same list, which a test compares with this one.
//!
//! Pure functions; nothing to lose. The backup copies by it.

use std::path::PathBuf;

use certs::layout::CONFIG;

use crate::config::Config;

/// Folder of the journal in a data folder.
pub const JOURNAL: &str = "journal/";

/// The originals of a data folder, in the order of the documents. Paths are as the configuration has them; a folder's ends
/// with a slash.
pub fn of(config: &Config) -> Vec<String> {
    let text = |path: &PathBuf| path.display().to_string();
    vec![
        CONFIG.to_owned(),
        JOURNAL.to_owned(),
        format!("{}/", config.keys.folder.display()),
        text(&config.keys.kek),
        text(&config.keys.trust_bundle),
        text(&config.keys.trust_anchor),
        text(&config.tls.certificate),
        text(&config.tls.key),
        text(&config.tls.client_ca),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: [&str; 2] = [include_str!("../../README.md"), include_str!("../ledger/README.md")];

    /// The words between backquotes in the paragraph that begins with this word.
    fn listed(document: &str) -> Vec<String> {
        let start = document.find("**Originals**").expect("the document has the list");
        let paragraph = document[start..].split("\n\n").next().expect("a paragraph");
        let list = paragraph.split_once(". ").expect("a sentence").0;
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_documents_have_the_list_that_a_backup_copies() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(CONFIG);
        std::fs::write(&path, "origin = \"a\"").expect("written");
        let config = Config::load(&path).expect("good");
        for document in DOCUMENTS {
            assert_eq!(listed(document), of(&config));
        }
    }
}
