//! The log as the public sees it after a restart, and the receipts that must stand in it.

use anyhow::Context as _;
use tests::{Reply, Server, eventually, now_ms};
use verifier::Hash;
use verifier::checkpoint::Checkpoint;
use verifier::merkle::{BatchTree, leaf_hash};
use verifier::note::{SignedNote, VerifierKey};
use verifier::proof::TlogProof;
use verifier::receipt::verify_against;
use verifier::report::Verdict;

use crate::must;

/// Entries of a full bundle.
const BUNDLE: usize = 256;

/// What is known of the log from outside.
#[derive(Default)]
pub(crate) struct Log {
    /// Leaf hashes by index, as the log told them last.
    leaves: Vec<Hash>,
    /// Index and leaf hash of every acknowledged entry whose receipt was verified.
    acknowledged: Vec<(u64, Hash)>,
}

impl Log {
    /// Acknowledged entries so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Reads the log from the public listener and verifies the receipts of these answers in it; all that were
    /// verified before must stand where they stood.
    pub(crate) async fn verify(&mut self, server: &Server, answers: &[Reply]) -> anyhow::Result<()> {
        let log = server.trust.bundle().logs.first().context("the bundle has no log")?;
        let now = server.size().await;
        // The public checkpoint follows within a second.
        let (text, checkpoint) = eventually("a checkpoint of all there is", || async {
            let text = text(server.public("/v1/log/checkpoint").await);
            let checkpoint = checkpoint(&text, &log.key);
            (checkpoint.size >= now).then_some((text, checkpoint))
        })
        .await;
        let size = usize::try_from(checkpoint.size)?;
        must(size >= self.leaves.len(), || {
            format!("the log went from {} entries to {size}", self.leaves.len())
        })?;
        self.read(server, size).await?;
        // The root covers what was not fetched again, too.
        let tree = BatchTree::new(self.leaves.clone());
        must(tree.root() == checkpoint.root, || {
            format!("the tree of {size} entries is not what was signed")
        })?;

        for reply in answers {
            let receipt = reply.receipt();
            must(receipt.index < checkpoint.size, || {
                format!("entry {} was acknowledged and is lost: the log has {size}", receipt.index)
            })?;
            let path = tree.path(usize::try_from(receipt.index)?);
            let proof = TlogProof { extra: None, index: receipt.index, path, checkpoint: text.clone() };
            let (request, answer) = (Some(&*reply.request), Some(&*reply.body));
            let report =
                verify_against(&receipt, Some(&proof), request, answer, &server.trust, now_ms() / 1_000);
            must(report.verdict == Verdict::Valid, || {
                format!("the receipt of entry {} does not verify: {:?}", receipt.index, report.reasons)
            })?;
            self.acknowledged.push((receipt.index, receipt.leaf_hash));
        }
        for (index, leaf) in &self.acknowledged {
            must(self.leaves.get(usize::try_from(*index)?) == Some(leaf), || {
                format!("entry {index} was acknowledged and is another one now")
            })?;
        }
        Ok(())
    }

    /// Fetches the entries up to `size`, beginning with the bundle that was not full.
    async fn read(&mut self, server: &Server, size: usize) -> anyhow::Result<()> {
        let first = self.leaves.len() / BUNDLE;
        let known = self.leaves.split_off(first * BUNDLE);
        for bundle in first..size.div_ceil(BUNDLE) {
            let width = (size - bundle * BUNDLE).min(BUNDLE);
            let bytes = server.public(&bundle_path(bundle, width)).await.expect(200).body;
            let mut rest = &bytes[..];
            for _ in 0..width {
                let (length, behind) = rest.split_first_chunk().context("a bundle is too short")?;
                let leaf = behind.get(..usize::from(u16::from_be_bytes(*length)));
                let leaf = leaf.context("a bundle is too short")?;
                self.leaves.push(leaf_hash(leaf));
                rest = &behind[leaf.len()..];
            }
        }
        must(self.leaves.get(first * BUNDLE..).is_some_and(|now| now.starts_with(&known)), || {
            "entries that were told before are other ones now".to_owned()
        })
    }
}

fn text(reply: Reply) -> String {
    String::from_utf8(reply.expect(200).body.to_vec()).unwrap()
}

fn checkpoint(text: &str, key: &VerifierKey) -> Checkpoint {
    let note = SignedNote::parse(text).unwrap();
    Checkpoint::parse(&note.verify(std::slice::from_ref(key)).unwrap()).unwrap()
}

/// The path of C2SP tlog-tiles.
fn bundle_path(bundle: usize, width: usize) -> String {
    let number = match bundle {
        0..1_000 => format!("{bundle:03}"),
        _ => format!("x{:03}/{:03}", bundle / 1_000, bundle % 1_000),
    };
    let partial = if width < BUNDLE { format!(".p/{width}") } else { String::new() };
    format!("/v1/log/tile/entries/{number}{partial}")
}
