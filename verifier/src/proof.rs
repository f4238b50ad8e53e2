//! C2SP log proofs (<https://c2sp.org/tlog-proof>): an inclusion path with the checkpoint it leads to.
//!
//! Pure functions; nothing to lose.

use crate::{Hash, checkpoint::decimal};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Longest proof that is read, in bytes.
pub const MAX_PROOF_BYTES: usize = 1 << 20;

/// Most nodes in a path: a tree of 2⁶⁴ leaves has no more levels.
pub const MAX_PATH_NODES: usize = 64;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The text is not a tlog-proof v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log proof is malformed")]
pub struct MalformedProof;

/// A proof that a leaf stands in a log. Parsing checks the form alone; see [`crate::receipt::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The opening of the leaf: salt ‖ C ‖ open (section 5). Not authenticated by itself.
    pub extra: Option<Vec<u8>>,
    /// Index of the leaf.
    pub index: u64,
    /// Inclusion path, from the leaf's sibling up.
    pub path: Vec<Hash>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: String,
}

impl TlogProof {
    /// The proof as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            text.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        text.push_str(&format!("index {}\n", self.index));
        text.push_str(&nodes_text(&self.path));
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`MalformedProof`] for anything the specification does not allow, and beyond [`MAX_PROOF_BYTES`] and
    /// [`MAX_PATH_NODES`].
    pub fn parse(text: &str) -> Result<Self, MalformedProof> {
        Self::read(text).ok_or(MalformedProof)
    }

    fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_PROOF_BYTES {
            return None;
        }
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        if lines.next()? != HEADER || checkpoint.is_empty() {
            return None;
        }
        let mut line = lines.next()?;
        let mut extra = None;
        if let Some(value) = line.strip_prefix("extra ") {
            extra = Some(STANDARD.decode(value).ok()?);
            line = lines.next()?;
        }
        let index = decimal(line.strip_prefix("index ")?)?;
        let path = nodes(lines)?;
        Some(Self { extra, index, path, checkpoint: checkpoint.to_owned() })
    }
}

/// The nodes of a path, base64, one a line: the form that a consistency proof has by itself.
pub fn nodes_text(path: &[Hash]) -> String {
    let mut text = String::new();
    for node in path {
        STANDARD.encode_string(node, &mut text);
        text.push('\n');
    }
    text
}

/// Reads what [`nodes_text`] writes.
///
/// # Errors
/// [`MalformedProof`], also beyond [`MAX_PATH_NODES`]
pub fn parse_nodes(text: &str) -> Result<Vec<Hash>, MalformedProof> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.strip_suffix('\n').and_then(|lines| nodes(lines.split('\n'))).ok_or(MalformedProof)
}

fn nodes<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Vec<Hash>> {
    let path = lines
        .map(|line| STANDARD.decode(line).ok()?.try_into().ok())
        .take(MAX_PATH_NODES.saturating_add(1))
        .collect::<Option<Vec<Hash>>>()?;
    (path.len() <= MAX_PATH_NODES).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> TlogProof {
        TlogProof {
            extra: Some(vec![1, 2, 3]),
            index: 7,
            path: vec![[4; 32], [5; 32]],
            checkpoint: "log\n9\nroot\n\n— log AAAA\n".to_owned(),
        }
    }

    #[test]
    fn round_trip() {
        let bare = TlogProof { extra: None, index: 0, path: Vec::new(), ..proof() };
        let empty_extra = TlogProof { extra: Some(Vec::new()), ..proof() };
        for proof in [proof(), bare, empty_extra] {
            assert_eq!(TlogProof::parse(&proof.to_text()), Ok(proof));
        }
    }

    #[test]
    fn nodes_by_themselves_read_back() {
        for path in [Vec::new(), vec![[4; 32]], vec![[4; 32]; MAX_PATH_NODES]] {
            assert_eq!(parse_nodes(&nodes_text(&path)), Ok(path));
        }
        let node = STANDARD.encode([4; 32]);
        let long = nodes_text(&vec![[4; 32]; MAX_PATH_NODES + 1]);
        for bad in ["\n", &node, &format!("{node}\n\n"), &format!("\n{node}\n"), "AAAA\n", &long] {
            assert_eq!(parse_nodes(bad), Err(MalformedProof), "{bad:?}");
        }
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let text = proof().to_text();
        let node = STANDARD.encode([4; 32]);
        let long = TlogProof { path: vec![[0; 32]; MAX_PATH_NODES + 1], ..proof() }.to_text();
        for bad in [
            String::new(),
            text.replace("@v1", "@v2"),
            text.replace("index 7", "index 07"),
            text.replace("index 7", "index -7"),
            text.replace("index 7", "index"),
            text.replace("index 7\n", ""),
            text.replace("extra AQID", "extra AQI"),
            text.replace("extra AQID\nindex 7", "index 7\nextra AQID"),
            text.replace(&node, "AAAA"),
            text.replace(&node, &format!("{node} ")),
            text.split_once("\n\n").unwrap().0.to_owned(),
            format!("{}\n\n", text.split_once("\n\n").unwrap().0),
            text.replace('\n', "\r\n"),
            long,
            "x".repeat(MAX_PROOF_BYTES + 1),
        ] {
            assert_eq!(TlogProof::parse(&bad), Err(MalformedProof), "{bad:?}");
        }
    }
}
