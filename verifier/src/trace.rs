//! Pages of entries: a holder's trace (`POST /v1/trace`) and an auditor's query (`POST /v1/log/query`), each entry with
//! what opens its leaf and its place in the log. The form of both answers stands here once, for who writes and who
//! checks them.
//!
//! A trace proves each statement (who, when, item, case, why, which fields, allowed or denied) without showing the
//! record or another holder's sequence: R and the other holders' K are digests. That nothing is left out follows from the
//! sequence, which has no gaps, and at its end from the index root. That no use whose delay has ended is left out follows
//! from what its release tells.
//!
//! Pure functions; nothing to lose.

use crate::{
    Hash,
    checkpoint::Checkpoint,
    encoding::{base64_bytes, hex_bytes},
    fields,
    index::{self, Terminal},
    json,
    leaf::{
        Completion, HolderLink, Labels, LeafKind, Open, inner_commitment, inner_commitment_of,
        insider_digest, statement_leaf,
    },
    merkle,
    policy::Policy,
    proof::{MAX_PATH_NODES, MAX_PROOF_BYTES},
    receipt::{self, Evidence, Receipt},
    report::{PageFacts, Reason, Report, WitnessFacts},
    sha256,
    trust::Trust,
};
use flatbuffers::VerifierOptions;
use schemas::{
    codes::{Code, Decision},
    date::Date,
    routes::Route,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

/// Bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(#[serde(with = "base64_bytes")] pub Vec<u8>);

/// A digest in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "base64_bytes")] pub Hash);

/// A holder's label in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(#[serde(with = "hex_bytes")] pub [u8; 16]);

/// An entry with what opens its leaf and leads to the page's checkpoint, and what that says in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Proven {
    /// Index in the log.
    pub index: u64,
    /// Hash of the leaf.
    pub leaf_hash: Digest,
    /// The open part, encoded: see [`Open`].
    pub open: Bytes,
    /// Salt of the commitment.
    pub salt: Digest,
    /// Commitment to what only insiders know.
    #[serde(rename = "C")]
    pub c: Digest,
    /// Inclusion path to the page's checkpoint, from the leaf's sibling up.
    pub path: Vec<Digest>,
    /// Journal time, RFC 3339 with milliseconds.
    pub time: String,
    /// USCC of the caller's organisation; empty for an entry of the exchange itself.
    pub organisation: String,
    /// Name of the route.
    pub route: String,
    /// Name of the decision.
    pub decision: String,
    /// Name of the public code.
    pub code: String,
}

impl Proven {
    /// From the parts of a receipt, with the path in a page's checkpoint. `None` when `open` cannot be read.
    pub fn new(receipt: &Receipt, path: &[Hash]) -> Option<Self> {
        let facts = receipt::facts(receipt, &Open::parse(&receipt.open).ok()?);
        Some(Self {
            index: receipt.index,
            leaf_hash: Digest(receipt.leaf_hash),
            open: Bytes(receipt.open.clone()),
            salt: Digest(receipt.salt),
            c: Digest(receipt.c),
            path: path.iter().copied().map(Digest).collect(),
            time: facts.time,
            organisation: facts.organisation,
            route: facts.route,
            decision: facts.decision,
            code: facts.code,
        })
    }

    fn receipt(&self, log: &str) -> Receipt {
        Receipt {
            log: log.to_owned(),
            index: self.index,
            leaf_hash: self.leaf_hash.0,
            open: self.open.0.clone(),
            salt: self.salt.0,
            c: self.c.0,
            request_salt: None,
            proof: None,
        }
    }

    /// Checks the entry in itself and its place under a checkpoint.
    fn check(&self, log: &str, checkpoint: Option<&Checkpoint>, report: &mut Report) {
        let receipt = self.receipt(log);
        let path: Vec<Hash> = self.path.iter().map(|node| node.0).collect();
        let open = Open::parse(&self.open.0).ok().filter(|open| open.index == self.index);
        if receipt.computed_leaf_hash() != self.leaf_hash.0
            || open.is_none()
            || Self::new(&receipt, &path).as_ref() != Some(self)
        {
            report.add(Reason::EntryMismatch, format!("entry {}", self.index));
        }
        if let Some(checkpoint) = checkpoint {
            let Checkpoint { size, root, .. } = checkpoint;
            if path.len() > MAX_PATH_NODES
                || !merkle::verify_inclusion(self.index, *size, &self.leaf_hash.0, &path, root)
            {
                report.add(Reason::NotIncluded, format!("leaf {} does not lead to the root", self.index));
            }
        }
    }
}

/// The text that a holder is told, with the salt made for this holder alone: H(H(salt ‖ label) ‖ document) is the digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Told {
    /// H(salt ‖ label).
    pub salt: Digest,
    /// The document, byte for byte: JSON.
    pub document: String,
}

/// The word for the retention class of uses.
pub const USES_CLASS: &str = "uses";

/// The end of a year of a holder's uses, as the holder is told of it: what they told cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destroyed {
    /// The retention class: [`USES_CLASS`].
    pub class: String,
    /// The year of the uses in China Standard Time.
    pub year: u16,
}

impl Told {
    fn digest(&self) -> Hash {
        sha256(&[&self.salt.0, self.document.as_bytes()])
    }

    /// Indexes of the delayed uses that the document tells; `None` for text that is no such document.
    fn released(&self) -> Option<Vec<u64>> {
        self.read().map(|document| document.released)
    }

    /// The year of uses that the document tells the end of.
    fn destroyed(&self) -> Option<Destroyed> {
        self.read()?.destroyed
    }

    fn read(&self) -> Option<Document> {
        let document = json::read(self.document.as_bytes()).ok().filter(Value::is_object)?;
        serde_json::from_value(document).ok()
    }
}

/// The members of a document that a check needs.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    released: Vec<u64>,
    #[serde(default)]
    fields: Vec<String>,
    /// To each of the fields, where values left.
    #[serde(default)]
    commitments: Vec<Digest>,
    destroyed: Option<Destroyed>,
}

/// The years of uses whose end a trace tells, with the index of the entry that does, and how many entries they leave untold.
#[derive(Default)]
struct Ended {
    years: BTreeMap<u16, u64>,
    entries: usize,
}

impl Ended {
    /// Whether what an entry told is destroyed by a later one.
    fn covers(&self, entry: &Proven) -> bool {
        let Ok(open) = Open::parse(&entry.open.0) else { return false };
        let is_use = Route::from_number(open.route).is_some_and(Route::is_use);
        let later = year_of(open.time_ms).and_then(|year| self.years.get(&year));
        is_use && later.is_some_and(|later| *later > entry.index)
    }
}

/// Year in China Standard Time of a moment, ms since 1970.
fn year_of(time_ms: u64) -> Option<u16> {
    let day = Date::at(i64::try_from(time_ms.checked_div(1_000)?).ok()?);
    u16::try_from(day.civil().0).ok()
}

/// Where an entry stands in the holder's sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Place {
    /// In the holder's own sequence.
    Own {
        /// Number, from 1, without gaps.
        sequence: u64,
        /// Number of the operator's chain that the entry before it stands in; 0 = this log.
        #[serde(rename = "previousChain")]
        previous_chain: u32,
        /// Means nothing outside the exchange.
        #[serde(rename = "previousPosition")]
        previous_position: u64,
        /// Index of the entry before it; 0 for the first.
        #[serde(rename = "previousIndex")]
        previous_index: u64,
        /// Leaf hash of the entry before it; zeros for the first.
        #[serde(rename = "previousLeaf")]
        previous_leaf: Digest,
    },
    /// In the oversight sequence, of which a holder sees nothing more.
    Hidden {
        /// [`HolderLink::hidden_place`].
        hidden: Digest,
    },
}

/// An entry of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TraceEntry {
    /// The part that every entry has.
    pub entry: Proven,
    /// R, the digest of what only insiders know.
    #[serde(rename = "R")]
    pub insider: Digest,
    /// K of each holder concerned, in order; `null` for the holder of the trace.
    pub holders: Vec<Option<Digest>>,
    /// Salted digest of what the holder is told; zeros for nothing.
    pub told_digest: Digest,
    /// The holder's place.
    pub place: Place,
    /// The text that the holder is told; absent when it cannot be read any more, as a later entry tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
    /// The secret that the salts of the commitments in `told` are made from: with it the holder opens one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_salt: Option<Digest>,
    /// Uses that were delayed by law and that this entry tells, as `told` lists them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released: Vec<Self>,
}

impl TraceEntry {
    /// The entry, and those that it releases.
    fn with_released(mut self) -> Vec<Self> {
        let released = std::mem::take(&mut self.released);
        std::iter::once(self).chain(released).collect()
    }

    /// Checks the entry for a holder.
    fn check(
        &self,
        page: &TracePage,
        checkpoint: Option<&Checkpoint>,
        ended: &mut Ended,
        report: &mut Report,
    ) {
        self.entry.check(&page.log, checkpoint, report);
        let index = self.entry.index;
        let Some(Label(label)) = page.label else {
            return report.add(Reason::SequenceBroken, format!("entry {index} is of no holder"));
        };
        let told = self.told_digest.0;
        let own = match &self.place {
            Place::Own { sequence, previous_chain, previous_position, previous_index, previous_leaf } => {
                let link = HolderLink {
                    label,
                    told,
                    sequence: *sequence,
                    previous_chain: *previous_chain,
                    previous_position: *previous_position,
                    previous_index: *previous_index,
                    previous_leaf: previous_leaf.0,
                };
                HolderLink::digest_of(&link.encode())
            }
            Place::Hidden { hidden } => HolderLink::oversight_digest(&label, &told, &hidden.0),
        };
        let mine = self.holders.iter().filter(|holder| holder.is_none()).count();
        let links = self.holders.iter().map(|holder| holder.map_or(own, |digest| digest.0));
        if mine != 1 || inner_commitment(&self.insider.0, links) != self.entry.c.0 {
            report.add(Reason::SequenceBroken, format!("entry {index} has no such place for this holder"));
        }
        // Every entry that concerns a holder tells something, be it that nothing but the attempt is known.
        let tells = match &self.told {
            None if ended.covers(&self.entry) => {
                ended.entries = ended.entries.saturating_add(1);
                None
            }
            None => {
                report.add(Reason::ToldMissing, format!("entry {index}"));
                None
            }
            Some(shown) if shown.digest() != told => {
                report.add(Reason::ToldMismatch, format!("entry {index}"));
                None
            }
            Some(shown) => {
                let tells = shown.released();
                // The exchange itself tells it, and of no year that goes on.
                let tells_ends = |year: u16| {
                    Open::parse(&self.entry.open.0).is_ok_and(|open| {
                        open.route == Route::System.number()
                            && year_of(open.time_ms).is_some_and(|now| now > year)
                    })
                };
                if let Some(Destroyed { class, year }) = shown.destroyed()
                    && class == USES_CLASS
                    && tells_ends(year)
                {
                    ended.years.insert(year, index);
                }
                if tells.is_none() {
                    report.add(Reason::ToldMismatch, format!("entry {index} tells nothing that can be read"));
                }
                tells
            }
        };
        let shown = self.released.iter().map(|released| released.entry.index);
        if !shown.eq(tells.into_iter().flatten()) {
            report.add(Reason::ReleaseMismatch, format!("entry {index} tells other delayed uses"));
        }
        for released in &self.released {
            if released.entry.index >= index {
                report.add(Reason::SequenceBroken, format!("entry {index} tells what comes after it"));
            }
            if !matches!(released.place, Place::Hidden { .. }) || !released.released.is_empty() {
                report.add(Reason::SequenceBroken, format!("entry {} was not delayed", released.entry.index));
            }
            released.check(page, checkpoint, ended, report);
        }
    }
}

/// Whether a field left with the answer of an entry in these pages of a trace with this value, as what the holder is told commits to
/// it. The pages are checked by [`verify_trace`], whose report this adds to.
pub fn open_field(file: &[u8], index: u64, name: &str, value: &str, report: &mut Report) {
    let answers = file.split(|byte| *byte == b'\n').map(|line| match receipt::cut(line) {
        Ok((answer, _)) => Cow::from(answer),
        Err(_) => Cow::from(line),
    });
    let pages = answers.filter_map(|answer| serde_json::from_slice::<TracePage>(&answer).ok());
    let mut entries = pages.flat_map(|page| page.entries).flat_map(TraceEntry::with_released);
    let opened = entries.find(|entry| entry.entry.index == index).and_then(|entry| {
        let document = entry.told.as_ref()?.read()?;
        let place = document.fields.iter().position(|field| field == name)?;
        let commitment = document.commitments.get(place)?.0;
        let number = u16::try_from(place).ok()?;
        Some(fields::commitment(&entry.field_salt?.0, number, name, value) == commitment)
    });
    match opened {
        Some(true) => report.checked.push("field"),
        Some(false) => report.add(Reason::FieldMismatch, "the field left with another value"),
        None => report.add(Reason::FieldMismatch, format!("entry {index} opens no such field")),
    }
}

/// The proof of the holder in the index root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IndexProof {
    /// The statement whose leaf stands in the log.
    pub statement: String,
    /// Index of that leaf.
    pub index: u64,
    /// Inclusion path of that leaf to the page's checkpoint.
    pub path: Vec<Digest>,
    /// Number of the holder's entries; 0 = the holder is not in the map.
    pub count: u64,
    /// Leaf hash of the last of them; zeros without one.
    pub last_leaf: Digest,
    /// Siblings on the way to the holder's key, the lowest first.
    pub siblings: Vec<Digest>,
    /// For a holder that is not in the map: key and value that stand in the place, if any do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<(Digest, Digest)>,
}

impl IndexProof {
    /// The size that the root covers, if everything about it holds.
    fn check(&self, label: &[u8; 16], checkpoint: &Checkpoint) -> Result<u64, &'static str> {
        let (size, root) = index::parse_statement(&self.statement).ok_or("the statement cannot be read")?;
        let leaf = merkle::leaf_hash(&statement_leaf(LeafKind::IndexRoot, self.statement.as_bytes()));
        let path: Vec<Hash> = self.path.iter().map(|node| node.0).collect();
        let included = path.len() <= MAX_PATH_NODES
            && merkle::verify_inclusion(self.index, checkpoint.size, &leaf, &path, &checkpoint.root);
        if !included || size > self.index {
            return Err("the statement does not stand in the log");
        }
        let terminal = match (&self.other, self.count) {
            (None, 0) => Terminal::Nothing,
            (Some((key, value)), 0) => Terminal::Other(key.0, value.0),
            (None, _) => Terminal::Found,
            (Some(_), _) => return Err("the map's proof shows two holders"),
        };
        let value = (self.count != 0).then(|| index::value(label, self.count, &self.last_leaf.0));
        let siblings: Vec<Hash> = self.siblings.iter().map(|node| node.0).collect();
        if index::root_from_path(&index::key(label), &terminal, value.as_ref(), &siblings) != Some(root) {
            return Err("the map's proof does not lead to its root");
        }
        Ok(size)
    }
}

/// A page of a holder's trace, newest entry first: the answer of `POST /v1/trace` without its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TracePage {
    /// Origin of the log.
    pub log: String,
    /// The holder's label; `null` for a holder that the log does not know.
    pub label: Option<Label>,
    /// The page begins behind the entry of this index; `null` = with the newest.
    pub before: Option<u64>,
    /// The entries, newest first, as far as the checkpoint reaches.
    pub entries: Vec<TraceEntry>,
    /// `before` of the next page; `null` when this one ends with the first entry.
    pub next: Option<u64>,
    /// The proof in the index root; `null` before there is one.
    pub index_root: Option<IndexProof>,
    /// [`completeness`] of the index root.
    pub completeness: String,
    /// The uses that are not told yet, of all holders together.
    pub delayed: DelayedUses,
    /// The signed checkpoint that all proofs of the page lead to.
    pub checkpoint: String,
}

/// Uses that the law keeps from their holders now: of all holders together, so that nobody learns from it whether a use
/// of the own licenses is among them. It is what the exchange says, and no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DelayedUses {
    /// How many.
    pub uses: u64,
    /// After how many days at most each is told, fixed when the log was made.
    pub days_max: u16,
}

/// The range that a whole trace is complete for, given the size that the index root covers; the same whether there are
/// delayed uses or not.
pub fn completeness(size: u64) -> String {
    format!("complete up to checkpoint {size}, except uses delayed by law")
}

/// A page of an auditor's query, oldest entry first: the answer of `POST /v1/log/query` without its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuditPage {
    /// Origin of the log.
    pub log: String,
    /// Entries from this index on were looked at.
    pub from_index: u64,
    /// Up to, and not including, this one.
    pub to_index: u64,
    /// `fromIndex` of the next page; `null` when nothing more is published.
    pub next: Option<u64>,
    /// Those that match.
    pub entries: Vec<AuditEntry>,
    /// The signed checkpoint that all proofs of the page lead to.
    pub checkpoint: String,
}

/// An entry as an auditor sees it: with the record and the completion, which its leaf commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuditEntry {
    /// The part that every entry has.
    pub entry: Proven,
    /// Salt of R.
    pub inner_salt: Digest,
    /// The `StateRecord`, encoded.
    pub record: Bytes,
    /// The completion, encoded.
    pub completion: Bytes,
    /// Name of the internal reason.
    pub reason: String,
    /// Labels of the holders concerned.
    pub concerned: Vec<Label>,
    /// The text that each of them is told; `null` for nothing, or when it was erased or its year of uses destroyed.
    pub told: Vec<Option<Told>>,
    /// The question, in an entry that concerns nobody the log knows: JSON as in `told`, without a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The user at the caller's side. Sealed in a subject part; no proof ties it to the leaf without the part's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Why, as the caller said; as `userName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl AuditEntry {
    fn check(&self, page: &AuditPage, checkpoint: Option<&Checkpoint>, report: &mut Report) {
        self.entry.check(&page.log, checkpoint, report);
        let index = self.entry.index;
        let c = inner_commitment_of(&self.inner_salt.0, &self.record.0, &self.completion.0);
        if c != Some(self.entry.c.0) || !self.is_shown_right() {
            report.add(Reason::EntryMismatch, format!("the record of entry {index}"));
        }
    }

    /// Whether what is said in words is what the record and the completion say.
    fn is_shown_right(&self) -> bool {
        let options = VerifierOptions { max_tables: MAX_RECORD_TABLES, ..VerifierOptions::default() };
        let Ok(record) = schemas::journal::root_as_state_record_with_opts(&options, &self.record.0) else {
            return false;
        };
        let name = reason_name(record.reason());
        let Some(completion) = Completion::split(&self.completion.0) else { return false };
        let links: Vec<HolderLink> = completion.links.iter().map(HolderLink::decode).collect();
        let released: Vec<u64> = record.released().iter().flatten().collect();
        let destroyed = |label: &[u8; 16]| {
            let name = record.destroyed().iter().flatten().find(|name| name.label().0 == *label)?;
            // Class 2 is that of uses, and the only one that ends by itself.
            (name.class() == 2).then(|| Destroyed { class: USES_CLASS.to_owned(), year: name.year() })
        };
        let commitments: Vec<Hash> =
            record.field_commitments().iter().flatten().map(|commitment| commitment.0).collect();
        let says = |document: Document, label: &[u8; 16]| {
            document.released == released
                && document.destroyed == destroyed(label)
                && document.commitments.iter().map(|digest| digest.0).eq(commitments.iter().copied())
                && (commitments.is_empty() || document.fields.len() == commitments.len())
        };
        let told = |(link, told): (&HolderLink, &Option<Told>)| {
            told.as_ref().is_none_or(|told| {
                told.digest() == link.told && told.read().is_some_and(|document| says(document, &link.label))
            })
        };
        name == self.reason
            && links.iter().map(|link| Label(link.label)).eq(self.concerned.iter().copied())
            && links.len() == self.told.len()
            && links.iter().zip(&self.told).all(told)
    }
}

/// Tables in one record; a batch of licenses with a counter each stays far below.
const MAX_RECORD_TABLES: usize = 100_000;
/// Longest file of pages that is read, bytes.
pub const MAX_FILE_BYTES: usize = 1 << 30;

/// Name of an internal reason, or its number when this verifier does not know it.
pub fn reason_name(number: u16) -> String {
    schemas::codes::Reason::from_number(number)
        .map_or_else(|| number.to_string(), |reason| reason.name().to_owned())
}

/// Checks a holder's trace: the answers of `POST /v1/trace`, newest page first, one a line. Under a policy its witnesses
/// must have seen each page's checkpoint. `at` in seconds since 1970.
pub fn verify_trace(file: &[u8], trust: &Trust, policy: Option<&Policy>, at: u64) -> Report {
    let mut report = Report::new(trust, at);
    let pages = read_pages::<TracePage>(file, trust, policy, &mut report);
    let Some((first, rest)) = pages.split_first() else {
        no_page(&mut report);
        return report;
    };
    let mut entries: Vec<&TraceEntry> = Vec::new();
    let mut checkpoints = Vec::with_capacity(pages.len());
    // The newest entries come first, so an end is met before what it ends.
    let mut ended = Ended::default();
    let mut witnesses = Witnesses::default();
    for page in &pages {
        let checkpoint = checkpoint(&page.log, &page.checkpoint, trust, policy, &mut witnesses, &mut report);
        for entry in &page.entries {
            entry.check(page, checkpoint.as_ref(), &mut ended, &mut report);
        }
        entries.extend(&page.entries);
        checkpoints.push(checkpoint);
    }
    let mut before = first;
    for page in rest {
        if page.log != first.log || page.label != first.label || page.before != before.next {
            report.add(Reason::SequenceBroken, "a page does not go on where the one before ends");
        }
        before = page;
    }
    let last = before;
    check_chain(&entries, &mut report);
    check_releases(&entries, &mut report);
    report.checked.extend(["entries", "sequence"]);
    witnesses.checked(&mut report);
    report.pages = Some(PageFacts {
        log: first.log.clone(),
        entries: entries.len(),
        completeness: None,
        destroyed: ended.entries,
        delayed: Some(first.delayed),
        witnesses: witnesses.fewest,
    });
    let oldest = entries.last().and_then(|entry| entry.number());
    if last.next.is_some() || oldest.is_some_and(|number| number != 1) {
        report.add(Reason::NotWhole, "the pages end before the holder's first entry");
    }
    let covered = match (first.label, &first.index_root, checkpoints.first()) {
        (Some(Label(label)), Some(proof), Some(Some(checkpoint))) => match proof.check(&label, checkpoint) {
            Ok(size) => Some((size, proof)),
            Err(why) => {
                report.add(Reason::BadIndexRoot, why);
                None
            }
        },
        (Some(_), Some(_), _) => None,
        _ => {
            report.add(Reason::NoIndexRoot, "nothing says which entry is the holder's last");
            None
        }
    };
    if let Some((size, proof)) = covered {
        report.checked.push("index-root");
        check_end(first, &entries, size, proof, &mut report);
        if first.completeness != completeness(size) {
            report.add(Reason::EntryMismatch, "the page says to be complete for another size");
        }
        if report.reasons.is_empty()
            && let Some(pages) = &mut report.pages
        {
            pages.completeness = Some(completeness(size));
        }
    }
    report
}

impl TraceEntry {
    /// Number in the holder's own sequence.
    fn number(&self) -> Option<u64> {
        match self.place {
            Place::Own { sequence, .. } => Some(sequence),
            Place::Hidden { .. } => None,
        }
    }
}

/// Each entry, newest first, must name the next one as the entry before it; the first one names none. Where the entry before
/// it stands in another chain, which these pages do not show, the next one is only older.
fn check_chain(entries: &[&TraceEntry], report: &mut Report) {
    for (at, entry) in entries.iter().enumerate() {
        let index = entry.entry.index;
        let Place::Own { sequence, previous_chain, previous_index, previous_leaf, .. } = &entry.place else {
            report.add(Reason::SequenceBroken, format!("entry {index} is of another sequence"));
            continue;
        };
        let next = entries.get(at.saturating_add(1));
        if *previous_chain != 0 {
            report.add(
                Reason::OtherChain,
                format!("what stands before entry {index} is in chain {previous_chain}"),
            );
        }
        let follows = match next {
            _ if *previous_chain != 0 => {
                // A holder's first entry has none before it, in no chain.
                *sequence > 1
                    && next.is_none_or(|next| {
                        next.entry.index < index
                            && next.number().is_some_and(|number| number.checked_add(1) < Some(*sequence))
                    })
            }
            Some(previous) => {
                previous.entry.index == *previous_index
                    && *previous_index < index
                    && previous.entry.leaf_hash == *previous_leaf
                    && previous.number().and_then(|number| number.checked_add(1)) == Some(*sequence)
            }
            None if *sequence == 1 => *previous_index == 0 && previous_leaf.0 == [0; 32],
            None => *sequence > 1,
        };
        if !follows {
            report.add(Reason::SequenceBroken, format!("what stands before entry {index} is not shown next"));
        }
    }
}

/// A delayed use is told once.
fn check_releases(entries: &[&TraceEntry], report: &mut Report) {
    let mut told = HashSet::new();
    for released in entries.iter().flat_map(|entry| &entry.released) {
        let index = released.entry.index;
        if !told.insert(index) {
            report.add(Reason::ReleaseMismatch, format!("entry {index} is told twice"));
        }
    }
}

/// The newest entries: what the index root counts must be there.
fn check_end(first: &TracePage, entries: &[&TraceEntry], size: u64, proof: &IndexProof, report: &mut Report) {
    let newest = entries.first().and_then(|entry| entry.number()).unwrap_or(0);
    if first.before.is_some() {
        report.add(Reason::NotWhole, "the pages do not begin with the newest entry");
    } else if newest < proof.count {
        let missing = format!("entries {} to {} of the sequence", newest.saturating_add(1), proof.count);
        report.add(Reason::EntriesMissing, missing);
    }
    for entry in entries {
        let Some(number) = entry.number() else { continue };
        let covered = entry.entry.index < size;
        let right = covered == (number <= proof.count)
            && (number != proof.count || entry.entry.leaf_hash == proof.last_leaf);
        if !right {
            let index = entry.entry.index;
            report
                .add(Reason::BadIndexRoot, format!("the index root knows another entry in place of {index}"));
        }
    }
}

/// Checks an auditor's pages: the answers of `POST /v1/log/query`, one a line; policy and time as for [`verify_trace`].
pub fn verify_audit(file: &[u8], trust: &Trust, policy: Option<&Policy>, at: u64) -> Report {
    let mut report = Report::new(trust, at);
    let pages = read_pages::<AuditPage>(file, trust, policy, &mut report);
    let Some(first) = pages.first() else {
        no_page(&mut report);
        return report;
    };
    let mut next = Some(first.from_index);
    let mut entries = 0usize;
    let mut witnesses = Witnesses::default();
    for page in &pages {
        if page.log != first.log || Some(page.from_index) != next {
            report.add(Reason::SequenceBroken, "a page does not go on where the one before ends");
        }
        next = page.next;
        let checkpoint = checkpoint(&page.log, &page.checkpoint, trust, policy, &mut witnesses, &mut report);
        let mut at = page.from_index;
        for entry in &page.entries {
            entry.check(page, checkpoint.as_ref(), &mut report);
            if !(at..page.to_index).contains(&entry.entry.index) {
                report.add(Reason::SequenceBroken, format!("entry {} is out of order", entry.entry.index));
            }
            at = entry.entry.index.saturating_add(1);
        }
        entries = entries.saturating_add(page.entries.len());
    }
    if next.is_some() {
        report.add(Reason::NotWhole, "the pages end before the query does");
    }
    report.checked.extend(["entries", "records"]);
    // Nobody but the exchange can say that no other entry matches, and what is sealed is not committed to by itself.
    report.not_checked.extend(["matches", "user-names"]);
    witnesses.checked(&mut report);
    report.pages = Some(PageFacts {
        log: first.log.clone(),
        entries,
        completeness: None,
        destroyed: 0,
        delayed: None,
        witnesses: witnesses.fewest,
    });
    report
}

/// A page of entries, as the answer of a route.
trait Page: for<'de> Deserialize<'de> {
    /// The route that answers with such pages.
    const ROUTE: Route;

    /// Origin of the log.
    fn log(&self) -> &str;

    /// Whether the page may be of the holders whom its receipt names.
    fn is_of(&self, labels: &Labels) -> bool;
}

impl Page for TracePage {
    const ROUTE: Route = Route::Trace;

    fn log(&self) -> &str {
        &self.log
    }

    fn is_of(&self, labels: &Labels) -> bool {
        matches!(labels, Labels::List(list) if list.iter().copied().map(Label).eq(self.label))
    }
}

impl Page for AuditPage {
    const ROUTE: Route = Route::LogQuery;

    fn log(&self) -> &str {
        &self.log
    }

    fn is_of(&self, _: &Labels) -> bool {
        true
    }
}

/// Whether a receipt is for a page: of the same log, answered by its route, about its holder.
fn is_for<P: Page>(receipt: &Receipt, open: &Open, page: &P) -> bool {
    receipt.log == page.log()
        && open.route == P::ROUTE.number()
        && open.decision == Decision::Permit.number()
        && open.code == Code::Ok.number()
        && page.is_of(&open.labels)
}

fn no_page(report: &mut Report) {
    if !report.has(Reason::Reformatted) {
        report.add(Reason::MalformedPage, "no page can be read");
    }
}

/// Reads the pages of a file, one a line, each checked against its receipt if it carries one, and the receipt against its
/// proof if it has one.
fn read_pages<P: Page>(file: &[u8], trust: &Trust, policy: Option<&Policy>, report: &mut Report) -> Vec<P> {
    let mut pages = Vec::new();
    if file.len() > MAX_FILE_BYTES {
        return pages;
    }
    let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let lines: Vec<&[u8]> = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    if json::count(file).is_some_and(|values| values != lines.len()) {
        report.add(Reason::Reformatted, "a page is one line, in the bytes as they were received");
        return pages;
    }
    let (mut receipts, mut proofs) = (true, true);
    for line in lines {
        let (page, receipt) = match receipt::cut(line) {
            Ok((answer, receipt)) => {
                let evidence = Evidence { policy, ..Evidence::default() };
                let own = receipt::verify_with(&receipt, &evidence, None, Some(line), trust, report.at);
                for finding in own.reasons {
                    if finding.reason == Reason::NoProof {
                        proofs = false;
                    } else if !report.has(finding.reason) {
                        report.add(finding.reason, format!("a page's receipt: {}", finding.detail));
                    }
                }
                let open = Open::parse(&receipt.open).ok();
                let open = open.filter(|open| open.answer_digest == sha256(&[&answer]));
                (serde_json::from_slice::<P>(&answer), open.map(|open| (receipt, open)))
            }
            Err(_) => {
                receipts = false;
                (serde_json::from_slice::<P>(line), None)
            }
        };
        match page {
            Ok(page) => {
                if receipt.is_some_and(|(receipt, open)| !is_for(&receipt, &open, &page)) {
                    report.add(Reason::PageMismatch, "a receipt is for another log, route or holder");
                }
                pages.push(page);
            }
            Err(error) => report.add(Reason::MalformedPage, error.to_string()),
        }
    }
    let mut note = |name, holds| {
        if holds { report.checked.push(name) } else { report.not_checked.push(name) }
    };
    note("answer", receipts);
    note("receipt-proof", receipts && proofs);
    pages
}

/// The witnesses that saw the checkpoints of the pages.
#[derive(Default)]
struct Witnesses {
    /// Counts of the checkpoint that the fewest have cosigned, when any witnesses are known.
    fewest: Option<WitnessFacts>,
    /// Pages whose checkpoint satisfies the policy, and pages.
    enough: usize,
    asked: usize,
}

impl Witnesses {
    fn checked(&self, report: &mut Report) {
        if self.asked > 0 && self.enough == self.asked {
            report.checked.push("witnesses");
        }
    }
}

/// The checkpoint of a page, if the log signed it, held against the policy.
fn checkpoint(
    log: &str,
    text: &str,
    trust: &Trust,
    policy: Option<&Policy>,
    witnesses: &mut Witnesses,
    report: &mut Report,
) -> Option<Checkpoint> {
    let Some(log) = trust.log(log) else {
        report.add(Reason::UnknownLog, format!("the trust bundle does not know log {log}"));
        return None;
    };
    if text.len() > MAX_PROOF_BYTES {
        report.add(Reason::BadCheckpoint, "the checkpoint is too long");
        return None;
    }
    let checkpoint = match receipt::read_checkpoint(text, log) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            report.add(Reason::BadCheckpoint, error);
            return None;
        }
    };
    let seen = receipt::witnesses(report, text, policy, log, &trust.witnesses);
    witnesses.asked = witnesses.asked.saturating_add(1);
    witnesses.enough = witnesses.enough.saturating_add(usize::from(seen.enough));
    if let Some(counts) = seen.counts
        && witnesses.fewest.is_none_or(|fewest| counts.cosigned < fewest.cosigned)
    {
        witnesses.fewest = Some(counts);
    }
    Some(checkpoint)
}

/// R of an entry from what only insiders hold; `None` when the completion has not the form of one.
pub fn insider(inner_salt: &Hash, record: &[u8], completion: &[u8]) -> Option<Hash> {
    Some(insider_digest(inner_salt, &sha256(&[record]), Completion::split(completion)?.head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::told_digest;
    use flatbuffers::FlatBufferBuilder;
    use schemas::journal as fb;

    const LABEL: [u8; 16] = [7; 16];
    const SALT: Hash = [8; 32];
    const INNER_SALT: Hash = [9; 32];

    fn told(document: &str) -> Told {
        Told { salt: Digest(sha256(&[&SALT, &LABEL])), document: document.to_owned() }
    }

    fn link(document: &str) -> HolderLink {
        HolderLink {
            label: LABEL,
            told: told_digest(&SALT, &LABEL, document.as_bytes()),
            sequence: 2,
            previous_chain: 0,
            previous_position: 3,
            previous_index: 4,
            previous_leaf: [5; 32],
        }
    }

    fn proven(index: u64, c: Hash) -> Proven {
        let open = Open {
            route: Route::System.number(),
            decision: Decision::System.number(),
            code: Code::Ok.number(),
            index,
            time_ms: 1,
            ..Open::default()
        };
        let log = "log.example/1".to_owned();
        let mut receipt = Receipt {
            log,
            index,
            leaf_hash: [0; 32],
            open: open.encode(),
            salt: [6; 32],
            c,
            request_salt: None,
            proof: None,
        };
        receipt.leaf_hash = receipt.computed_leaf_hash();
        Proven::new(&receipt, &[]).unwrap()
    }

    /// An entry that tells this document, in the own sequence or as a delayed use.
    fn entry(index: u64, document: &str, hidden: bool, released: Vec<TraceEntry>) -> TraceEntry {
        let insider = [1; 32];
        let link = link(document);
        let (digest, place) = if hidden {
            let hidden = HolderLink::hidden_place(&INNER_SALT, &link.encode());
            let digest = HolderLink::oversight_digest(&LABEL, &link.told, &hidden);
            (digest, Place::Hidden { hidden: Digest(hidden) })
        } else {
            let place = Place::Own {
                sequence: link.sequence,
                previous_chain: link.previous_chain,
                previous_position: link.previous_position,
                previous_index: link.previous_index,
                previous_leaf: Digest(link.previous_leaf),
            };
            (HolderLink::digest_of(&link.encode()), place)
        };
        TraceEntry {
            entry: proven(index, inner_commitment(&insider, [digest])),
            insider: Digest(insider),
            holders: vec![None],
            told_digest: Digest(link.told),
            place,
            told: Some(told(document)),
            field_salt: None,
            released,
        }
    }

    fn reasons(entry: &TraceEntry) -> Vec<Reason> {
        let page = TracePage {
            log: "log.example/1".to_owned(),
            label: Some(Label(LABEL)),
            before: None,
            entries: Vec::new(),
            next: None,
            index_root: None,
            completeness: String::new(),
            delayed: DelayedUses { uses: 0, days_max: 0 },
            checkpoint: String::new(),
        };
        let mut report = Report::failed(Reason::NoIndexRoot, "", 0);
        entry.check(&page, None, &mut Ended::default(), &mut report);
        report.reasons.iter().skip(1).map(|finding| finding.reason).collect()
    }

    #[test]
    fn a_release_shows_what_it_tells_and_nothing_that_comes_after_it() {
        let used = |index| entry(index, "{}", true, Vec::new());
        assert_eq!(reasons(&entry(9, r#"{"released":[5]}"#, false, vec![used(5)])), []);
        assert_eq!(reasons(&entry(9, r#"{"released":[5,6]}"#, false, vec![used(5), used(6)])), []);
        assert_eq!(reasons(&entry(9, r#"{"fields":["released"]}"#, false, Vec::new())), []);
        let mismatch = [Reason::ReleaseMismatch];
        for (document, shown) in [
            (r#"{"released":[5]}"#, vec![]),
            (r#"{"released":[5]}"#, vec![used(6)]),
            (r#"{"released":[5]}"#, vec![used(5), used(5)]),
            (r#"{"released":[5,6]}"#, vec![used(6), used(5)]),
            (r#"{"released":[5,6]}"#, vec![used(5)]),
            ("{}", vec![used(5)]),
        ] {
            assert_eq!(reasons(&entry(9, document, false, shown)), mismatch, "{document}");
        }
        let later = entry(9, r#"{"released":[9]}"#, false, vec![used(9)]);
        assert_eq!(reasons(&later), [Reason::SequenceBroken]);
        // What is told must be told in the open, and must be readable.
        let mut silent = entry(9, r#"{"released":[5]}"#, false, Vec::new());
        silent.told = None;
        assert_eq!(reasons(&silent), [Reason::ToldMissing]);
        for unreadable in ["", "[]", r#"{"released":[-1]}"#, r#"{"released":[5],"released":[]}"#] {
            assert_eq!(reasons(&entry(9, unreadable, false, Vec::new())), [Reason::ToldMismatch]);
        }
        let mut other = entry(9, "{}", false, Vec::new());
        other.told = Some(told("{ }"));
        assert_eq!(reasons(&other), [Reason::ToldMismatch]);
    }

    #[test]
    fn a_delayed_use_is_told_once() {
        let used = || entry(5, "{}", true, Vec::new());
        let releases = [7, 9].map(|index| entry(index, r#"{"released":[5]}"#, false, vec![used()]));
        let found = |entries: &[&TraceEntry]| {
            let mut report = Report::failed(Reason::NoIndexRoot, "", 0);
            check_releases(entries, &mut report);
            report.has(Reason::ReleaseMismatch)
        };
        assert!(!found(&[&releases[0]]));
        assert!(found(&[&releases[0], &releases[1]]));
    }

    /// A holder's sequence may span several chains; one chain alone then tells nothing of the others.
    #[test]
    fn a_place_in_another_chain_is_named_and_cannot_be_told_from_here() {
        let found = |places: &[(u64, u64, u32, u64, Hash)]| {
            let entries: Vec<TraceEntry> = places
                .iter()
                .map(|(index, sequence, previous_chain, previous_index, previous_leaf)| {
                    let mut one = entry(*index, "{}", false, Vec::new());
                    one.place = Place::Own {
                        sequence: *sequence,
                        previous_chain: *previous_chain,
                        previous_position: 0,
                        previous_index: *previous_index,
                        previous_leaf: Digest(*previous_leaf),
                    };
                    one
                })
                .collect();
            let mut report = Report::failed(Reason::NoIndexRoot, "", 0);
            check_chain(&entries.iter().collect::<Vec<_>>(), &mut report);
            report.reasons.iter().skip(1).map(|finding| finding.reason).collect::<Vec<_>>()
        };
        let first = entry(3, "{}", false, Vec::new()).entry.leaf_hash.0;
        let begins = (3, 1, 0, 0, [0; 32]);
        assert_eq!(found(&[(9, 2, 0, 3, first), begins]), []);
        // Sequence 2 to 4 stand elsewhere.
        assert_eq!(found(&[(9, 5, 7, 8, [1; 32]), begins]), [Reason::OtherChain]);
        assert_eq!(found(&[(9, 5, 7, 8, [1; 32])]), [Reason::OtherChain]);
        let broken = [Reason::OtherChain, Reason::SequenceBroken];
        // The entry before it is this one, whatever chain it names; it is newer; nothing comes before a first entry.
        assert_eq!(found(&[(9, 2, 7, 8, [1; 32]), begins]), broken);
        assert_eq!(found(&[(2, 5, 7, 8, [1; 32]), begins]), broken);
        assert_eq!(found(&[(3, 1, 7, 0, [0; 32])]), broken);
    }

    /// An auditor sees that a release tells the holders what its record says.
    #[test]
    fn what_a_release_tells_is_what_its_record_says() {
        let mut builder = FlatBufferBuilder::new();
        let released = Some(builder.create_vector(&[5u64]));
        let args = fb::StateRecordArgs { released, ..fb::StateRecordArgs::default() };
        let record = fb::StateRecord::create(&mut builder, &args);
        fb::finish_state_record_buffer(&mut builder, record);
        let record = builder.finished_data().to_vec();
        for (document, right) in
            [(r#"{"released":[5]}"#, true), (r#"{"released":[6]}"#, false), ("{}", false)]
        {
            let completion = [&[1, 0, 0, 1][..], &link(document).encode()].concat();
            let c = inner_commitment_of(&INNER_SALT, &record, &completion).unwrap();
            let entry = AuditEntry {
                entry: proven(9, c),
                inner_salt: Digest(INNER_SALT),
                record: Bytes(record.clone()),
                completion: Bytes(completion),
                reason: reason_name(0),
                concerned: vec![Label(LABEL)],
                told: vec![Some(told(document))],
                asked: None,
                user_name: None,
                detail: None,
            };
            assert_eq!(entry.is_shown_right(), right, "{document}");
        }
    }
}
