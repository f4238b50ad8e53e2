//! Log leaves and what opens them (section 4): `open`, the commitment, the 34 leaf bytes.
//!
//! The ledger makes leaves with it, and a checker makes them again. Pure functions; nothing to lose.

use crate::{Hash, sha256};
use ring::digest::{Context, SHA256};

/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 34;

/// Bytes of an `open` without labels.
pub const OPEN_FIXED_BYTES: usize = 176;

/// Where the index stands in an encoded `open` (8 bytes, big-endian), so that a sequencer can complete it in place.
pub const OPEN_INDEX_OFFSET: usize = 8;

/// Where the time stands in an encoded `open` (8 bytes, big-endian).
pub const OPEN_TIME_OFFSET: usize = 16;

/// Most labels that stand in an `open` themselves; a longer list stands as its digest.
pub const MAX_LABELS: usize = 4;

/// Most parties of a chain that stand in an `open` themselves; a longer chain stands as its digest.
pub const MAX_PARTIES: usize = 4;

pub(crate) const LEAF_VERSION: u8 = 2;
const OPEN_LAYOUT: u8 = 2;
/// In place of a count: the digest of a longer list stands there.
const AS_DIGEST: u8 = 255;
/// Index and time in an encoded `open`.
const STAMP_BYTES: usize = 16;
const STAGE_WHOLE: u8 = 0;
const STAGE_INTENT: u8 = 1;
const STAGE_OUTCOME: u8 = 2;
const PARTY_ORGANISATION: u8 = 1;
const PARTY_PERSON: u8 = 2;
/// First byte of a completion: the links are in the holders' own sequences, or in their oversight sequences.
const LAYOUT_OWN: u8 = 1;
const LAYOUT_OVERSIGHT: u8 = 2;
const COMPLETION_HEAD_BYTES: usize = 4;

/// The kind of a leaf; public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LeafKind {
    /// A decision or another entry.
    Entry = 1,
    /// A root over the holders' sequences.
    IndexRoot = 2,
    /// A shard begins.
    ShardOpen = 3,
    /// A shard ends.
    ShardClose = 4,
}

impl LeafKind {
    /// The stable number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::IndexRoot => 2,
            Self::ShardOpen => 3,
            Self::ShardClose => 4,
        }
    }

    /// The kind of a stable number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Entry),
            2 => Some(Self::IndexRoot),
            3 => Some(Self::ShardOpen),
            4 => Some(Self::ShardClose),
            _ => None,
        }
    }
}

/// Labels of the holders that an entry concerns, as far as the caller may know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Up to [`MAX_LABELS`] labels.
    List(Vec<[u8; 16]>),
    /// H(all labels) of a longer list.
    Digest(Hash),
}

impl Labels {
    /// A list short enough stands itself, a longer one as its digest.
    pub fn new(labels: Vec<[u8; 16]>) -> Self {
        if labels.len() > MAX_LABELS {
            Self::Digest(sha256(&[labels.as_flattened()]))
        } else {
            Self::List(labels)
        }
    }
}

/// Somebody whom a caller acts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// An organisation, by USCC in ASCII.
    Organisation([u8; 18]),
    /// A holder, by label.
    Person([u8; 16]),
}

impl Party {
    /// Bytes of a party: what it is (1), then the USCC, or the label and two zeros.
    pub const BYTES: usize = 19;

    /// The bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let (kind, who) = match self {
            Self::Organisation(organisation) => (PARTY_ORGANISATION, organisation.as_slice()),
            Self::Person(label) => (PARTY_PERSON, label.as_slice()),
        };
        let mut bytes = [0; Self::BYTES];
        for (to, from) in bytes.iter_mut().zip([&[kind], who].concat()) {
            *to = from;
        }
        bytes
    }

    /// Reads the bytes of a party. `None` for another kind, or a person with more than a label.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            PARTY_ORGANISATION => Some(Self::Organisation(rest.try_into().ok()?)),
            PARTY_PERSON => {
                let (label, zeros) = rest.split_first_chunk()?;
                zeros.iter().all(|byte| *byte == 0).then_some(Self::Person(*label))
            }
            _ => None,
        }
    }
}

/// Whom the caller acts for: the nearest first, the one in whose name it all happens last. Empty for a caller who acts in
/// its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActingFor {
    /// Up to [`MAX_PARTIES`] parties.
    Chain(Vec<Party>),
    /// H(all parties) of a longer chain.
    Digest(Hash),
}

impl Default for ActingFor {
    fn default() -> Self {
        Self::Chain(Vec::new())
    }
}

impl ActingFor {
    /// A chain short enough stands itself, a longer one as its digest.
    pub fn new(chain: Vec<Party>) -> Self {
        if chain.len() > MAX_PARTIES { Self::Digest(Self::digest(&chain)) } else { Self::Chain(chain) }
    }

    fn digest(chain: &[Party]) -> Hash {
        sha256(&[chain.iter().map(Party::encode).collect::<Vec<_>>().as_flattened()])
    }
}

/// Whether an entry decides alone, or is one of the two entries of a relayed call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The entry decides alone.
    #[default]
    Whole,
    /// Durable before the call leaves. It has no answer, and its answer digest is zeros.
    Intent,
    /// Durable before the answer leaves.
    Outcome {
        /// Index of the intent in the same log, which this entry closes.
        intent: u64,
    },
}

/// The bytes are no `open` of section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the open part is malformed")]
pub struct MalformedOpen;

/// The part of an entry that the caller may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Number of the route (`schemas::routes::Route`).
    pub route: u8,
    /// Number of the decision (`schemas::codes::Decision`): 1 permit, 2 denial, 3 system entry.
    pub decision: u8,
    /// Public code (`schemas::codes::Code`).
    pub code: u16,
    /// Index of the leaf in the log.
    pub index: u64,
    /// Journal time, ms since 1970.
    pub time_ms: u64,
    /// USCC of the caller's organisation in ASCII; zeros for a system entry.
    pub organisation: [u8; 18],
    /// H(request salt ‖ body as received), [`crate::receipt::request_digest`]; zeros when it was not read to its end.
    pub request_digest: Hash,
    /// H(answer bytes without the receipt).
    pub answer_digest: Hash,
    /// Hash of the policy set that decided.
    pub policy: Hash,
    /// H(all sealed subject parts of the entry).
    pub subject_digest: Hash,
    /// Labels of the holders named in request or answer.
    pub labels: Labels,
    /// Whom the caller acts for, as far as the caller may know.
    pub acting_for: ActingFor,
    /// Whether the entry is one of two.
    pub stage: Stage,
}

impl Default for Open {
    /// An `open` that says nothing. Its decision is none, so that [`Open::parse`] refuses it until one is put in.
    fn default() -> Self {
        Self {
            route: 0,
            decision: 0,
            code: 0,
            index: 0,
            time_ms: 0,
            organisation: [0; 18],
            request_digest: [0; 32],
            answer_digest: [0; 32],
            policy: [0; 32],
            subject_digest: [0; 32],
            labels: Labels::List(Vec::new()),
            acting_for: ActingFor::default(),
            stage: Stage::Whole,
        }
    }
}

impl Open {
    /// The bytes that are committed to. A list of more than [`MAX_LABELS`] labels is written as its digest, and so is a
    /// chain of more than [`MAX_PARTIES`].
    pub fn encode(&self) -> Vec<u8> {
        let digest;
        let (count, labels): (u8, &[u8]) = match &self.labels {
            Labels::Digest(digest) => (AS_DIGEST, digest),
            Labels::List(list) => match u8::try_from(list.len()) {
                Ok(count) if list.len() <= MAX_LABELS => (count, list.as_flattened()),
                _ => {
                    digest = sha256(&[list.as_flattened()]);
                    (AS_DIGEST, &digest)
                }
            },
        };
        let (acting, chain): (u8, Vec<u8>) = match &self.acting_for {
            ActingFor::Digest(digest) => (AS_DIGEST, digest.to_vec()),
            ActingFor::Chain(chain) => match u8::try_from(chain.len()) {
                Ok(count) if chain.len() <= MAX_PARTIES => {
                    (count, chain.iter().flat_map(Party::encode).collect())
                }
                _ => (AS_DIGEST, ActingFor::digest(chain).to_vec()),
            },
        };
        let (stage, intent) = match self.stage {
            Stage::Whole => (STAGE_WHOLE, None),
            Stage::Intent => (STAGE_INTENT, None),
            Stage::Outcome { intent } => (STAGE_OUTCOME, Some(intent)),
        };
        let mut bytes = Vec::with_capacity(OPEN_FIXED_BYTES.saturating_add(labels.len()));
        bytes.extend_from_slice(&[OPEN_LAYOUT, self.route, self.decision, count]);
        bytes.extend_from_slice(&self.code.to_be_bytes());
        bytes.extend_from_slice(&[stage, acting]);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&self.time_ms.to_be_bytes());
        bytes.extend_from_slice(&self.organisation);
        bytes.extend_from_slice(&[0; 6]);
        for digest in [&self.request_digest, &self.answer_digest, &self.policy, &self.subject_digest] {
            bytes.extend_from_slice(digest);
        }
        bytes.extend_from_slice(labels);
        bytes.extend_from_slice(&chain);
        if let Some(intent) = intent {
            bytes.extend_from_slice(&intent.to_be_bytes());
        }
        bytes
    }

    /// Reads an `open`. Strict: what is said to be zero is zero and the length is exact, so that encoding gives the
    /// same bytes again.
    ///
    /// # Errors
    /// [`MalformedOpen`]
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedOpen> {
        Self::read(bytes).ok_or(MalformedOpen)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [layout, route, decision, count] = take(&mut rest)?;
        let code = u16::from_be_bytes(take(&mut rest)?);
        let [stage, acting] = take(&mut rest)?;
        let index = u64::from_be_bytes(take(&mut rest)?);
        let time_ms = u64::from_be_bytes(take(&mut rest)?);
        let organisation = take(&mut rest)?;
        let gap: [u8; 6] = take(&mut rest)?;
        let request_digest = take(&mut rest)?;
        let answer_digest = take(&mut rest)?;
        let policy = take(&mut rest)?;
        let subject_digest = take(&mut rest)?;
        if layout != OPEN_LAYOUT || !(1..=3).contains(&decision) || gap != [0; 6] {
            return None;
        }
        let labels = if count == AS_DIGEST {
            Labels::Digest(take(&mut rest)?)
        } else if usize::from(count) <= MAX_LABELS {
            let mut list = Vec::with_capacity(count.into());
            for _ in 0..count {
                list.push(take(&mut rest)?);
            }
            Labels::List(list)
        } else {
            return None;
        };
        let acting_for = if acting == AS_DIGEST {
            ActingFor::Digest(take(&mut rest)?)
        } else if usize::from(acting) <= MAX_PARTIES {
            let mut chain = Vec::with_capacity(acting.into());
            for _ in 0..acting {
                chain.push(Party::decode(&take(&mut rest)?)?);
            }
            ActingFor::Chain(chain)
        } else {
            return None;
        };
        let stage = match stage {
            STAGE_WHOLE => Stage::Whole,
            STAGE_INTENT => Stage::Intent,
            STAGE_OUTCOME => Stage::Outcome { intent: u64::from_be_bytes(take(&mut rest)?) },
            _ => return None,
        };
        rest.is_empty().then_some(Self {
            route,
            decision,
            code,
            index,
            time_ms,
            organisation,
            request_digest,
            answer_digest,
            policy,
            subject_digest,
            labels,
            acting_for,
            stage,
        })
    }
}

/// The next `N` bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// The digest of an encoded `open` without what only the sequencer knows: H of its bytes with zeros for index and time.
pub fn open_digest(open: &[u8]) -> Hash {
    let (head, rest) = open.split_at(open.len().min(OPEN_INDEX_OFFSET));
    let (stamp, rest) = rest.split_at(rest.len().min(STAMP_BYTES));
    sha256(&[head, [0; STAMP_BYTES].get(..stamp.len()).unwrap_or_default(), rest])
}

/// The commitment of an entry: H(salt ‖ index ‖ time ‖ [`open_digest`] ‖ C), with index and time as they stand in `open`.
pub fn commitment(salt: &Hash, open: &[u8], c: &Hash) -> Hash {
    commitment_of(salt, open, &open_digest(open), c)
}

/// The same with the digest of `open` at hand.
pub fn commitment_of(salt: &Hash, open: &[u8], open_digest: &Hash, c: &Hash) -> Hash {
    let end = OPEN_INDEX_OFFSET.saturating_add(STAMP_BYTES).min(open.len());
    sha256(&[salt, open.get(OPEN_INDEX_OFFSET..end).unwrap_or_default(), open_digest, c])
}

/// R, the salted digest of what only insiders know: H(inner_salt ‖ H(record) ‖ counters).
///
/// `counters` is the head of the completion with the counters, without the links.
pub fn insider_digest(inner_salt: &Hash, record_digest: &Hash, counters: &[u8]) -> Hash {
    sha256(&[inner_salt, record_digest, counters])
}

/// The place of an entry in one holder's chain of entries: the gap-free sequence that makes an omitted use visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderLink {
    /// The holder.
    pub label: [u8; 16],
    /// Salted digest of what the holder is told: [`told_digest`]; zeros for nothing.
    pub told: Hash,
    /// Number of the entry in the sequence, from 1, without gaps.
    pub sequence: u64,
    /// Number of the operator's chain (log) that the entry before it stands in; 0 = this log, and for the first.
    pub previous_chain: u32,
    /// Where the journal has the entry before it; 0 for the first. Means nothing outside the exchange.
    pub previous_position: u64,
    /// Index of the entry before it in the sequence; 0 for the first.
    pub previous_index: u64,
    /// Leaf hash of the entry before it; zeros for the first.
    pub previous_leaf: Hash,
}

impl HolderLink {
    /// Bytes of a link.
    pub const BYTES: usize = 16 + 32 + 8 + 4 + 8 + 8 + 32;

    /// The bytes: the fields in their order, numbers big-endian.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.label);
        bytes[16..48].copy_from_slice(&self.told);
        bytes[48..56].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.previous_chain.to_be_bytes());
        bytes[60..68].copy_from_slice(&self.previous_position.to_be_bytes());
        bytes[68..76].copy_from_slice(&self.previous_index.to_be_bytes());
        bytes[76..].copy_from_slice(&self.previous_leaf);
        bytes
    }

    /// Reads the bytes of a link.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let (label, rest) = bytes.split_first_chunk().expect("a link has a label");
        let (told, rest) = rest.split_first_chunk().expect("a link has a digest");
        let (sequence, rest) = rest.split_first_chunk().expect("a link has a sequence");
        let (chain, rest) = rest.split_first_chunk().expect("a link has a chain");
        let (position, rest) = rest.split_first_chunk().expect("a link has a position");
        let (index, rest) = rest.split_first_chunk().expect("a link has an index");
        Self {
            label: *label,
            told: *told,
            sequence: u64::from_be_bytes(*sequence),
            previous_chain: u32::from_be_bytes(*chain),
            previous_position: u64::from_be_bytes(*position),
            previous_index: u64::from_be_bytes(*index),
            previous_leaf: rest.try_into().expect("a link ends with a hash"),
        }
    }

    /// K of the bytes of a link in the holder's own sequence: H(1 ‖ link).
    ///
    /// Hides what it commits to from whoever does not know `told`, which is salted for this holder alone.
    pub fn digest_of(link: &[u8; Self::BYTES]) -> Hash {
        sha256(&[&[LAYOUT_OWN], link])
    }

    /// K of a link in the holder's oversight sequence: H(2 ‖ label ‖ told ‖ place).
    ///
    /// A holder who is told of a delayed use once it is released opens this K with [`Self::hidden_place`], and learns
    /// nothing of the other uses in that sequence, which may still be delayed.
    pub fn oversight_digest(label: &[u8; 16], told: &Hash, place: &Hash) -> Hash {
        sha256(&[&[LAYOUT_OVERSIGHT], label, told, place])
    }

    /// The digest in place of a link in the oversight sequence: H(inner_salt ‖ link). The salt never leaves the exchange.
    pub fn hidden_place(inner_salt: &Hash, link: &[u8; Self::BYTES]) -> Hash {
        sha256(&[inner_salt, link])
    }
}

/// The salted digest of what a holder is told of an entry: H(H(salt ‖ label) ‖ told).
///
/// The salt never leaves the exchange; the holder gets H(salt ‖ label), which opens no other holder's digest.
pub fn told_digest(salt: &Hash, label: &[u8; 16], told: &[u8]) -> Hash {
    sha256(&[&sha256(&[salt, label]), told])
}

/// C, the commitment to what the caller is not told: H(R ‖ K of each holder concerned, in order).
pub fn inner_commitment(insider: &Hash, links: impl IntoIterator<Item = Hash>) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(insider);
    for link in links {
        context.update(&link);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// C of an entry from what only insiders hold: the inner salt, the record and the completion (section 6). `None` when
/// the completion has not the form of one.
pub fn inner_commitment_of(inner_salt: &Hash, record: &[u8], completion: &[u8]) -> Option<Hash> {
    inner_commitment_with(inner_salt, &sha256(&[record]), completion)
}

/// The same with the digest of the record at hand.
pub fn inner_commitment_with(inner_salt: &Hash, record_digest: &Hash, completion: &[u8]) -> Option<Hash> {
    let completion = Completion::split(completion)?;
    let insider = insider_digest(inner_salt, record_digest, completion.head);
    Some(inner_commitment(&insider, completion.links.iter().map(|link| completion.digest(inner_salt, link))))
}

/// The parts of a completion (section 6).
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// Whether the links are in the oversight sequences.
    pub delayed: bool,
    /// Everything before the links.
    pub head: &'a [u8],
    /// The links.
    pub links: &'a [[u8; HolderLink::BYTES]],
}

impl<'a> Completion<'a> {
    /// Splits the bytes; `None` when their form is another.
    pub fn split(bytes: &'a [u8]) -> Option<Self> {
        let [layout, counters, links @ ..] = *bytes.first_chunk::<COMPLETION_HEAD_BYTES>()?;
        let head = usize::from(counters).checked_mul(4)?.checked_add(COMPLETION_HEAD_BYTES)?;
        let (head, rest) = bytes.split_at_checked(head)?;
        let (list, odd) = rest.as_chunks();
        let fits = odd.is_empty() && list.len() == usize::from(u16::from_be_bytes(links));
        let delayed = match layout {
            LAYOUT_OWN => false,
            LAYOUT_OVERSIGHT => true,
            _ => return None,
        };
        fits.then_some(Self { delayed, head, links: list })
    }

    /// K of one of the links.
    pub fn digest(&self, inner_salt: &Hash, link: &[u8; HolderLink::BYTES]) -> Hash {
        if !self.delayed {
            return HolderLink::digest_of(link);
        }
        let HolderLink { label, told, .. } = HolderLink::decode(link);
        HolderLink::oversight_digest(&label, &told, &HolderLink::hidden_place(inner_salt, link))
    }
}

/// The leaf of a statement: what is public from the beginning (index root, shard open, shard close) and so stands in
/// the log as H(statement), without a salt.
pub fn statement_leaf(kind: LeafKind, statement: &[u8]) -> [u8; LEAF_BYTES] {
    leaf_bytes(kind, &sha256(&[statement]))
}

/// The leaf: version ‖ kind ‖ commitment.
pub fn leaf_bytes(kind: LeafKind, commitment: &Hash) -> [u8; LEAF_BYTES] {
    let mut leaf = [0; LEAF_BYTES];
    let (head, tail) = leaf.split_at_mut(2);
    head.copy_from_slice(&[LEAF_VERSION, kind.number()]);
    tail.copy_from_slice(commitment);
    leaf
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(labels: Labels) -> Open {
        Open {
            route: 5,
            decision: 1,
            code: 0x0102,
            index: 0x1112_1314_1516_1718,
            time_ms: 0x2122_2324_2526_2728,
            organisation: *b"91310000000000000X",
            request_digest: [3; 32],
            answer_digest: [4; 32],
            policy: [5; 32],
            subject_digest: [6; 32],
            labels,
            ..Open::default()
        }
    }

    const AGENT: Party = Party::Person([9; 16]);
    const BODY: Party = Party::Organisation(*b"91310000000000001X");

    #[test]
    fn fields_stand_where_the_format_says() {
        let bytes = open(Labels::List(vec![[7; 16]])).encode();
        assert_eq!(bytes.len(), OPEN_FIXED_BYTES + 16);
        assert_eq!(bytes[..8], [2, 5, 1, 1, 1, 2, 0, 0]);
        assert_eq!(bytes[OPEN_INDEX_OFFSET..][..8], 0x1112_1314_1516_1718u64.to_be_bytes());
        assert_eq!(bytes[OPEN_TIME_OFFSET..][..8], 0x2122_2324_2526_2728u64.to_be_bytes());
        assert_eq!(&bytes[24..42], b"91310000000000000X");
        assert_eq!(bytes[42..48], [0; 6]);
        assert_eq!((bytes[48], bytes[80], bytes[112], bytes[144], bytes[176]), (3, 4, 5, 6, 7));
        let acting_for = ActingFor::new(vec![AGENT, BODY]);
        let stage = Stage::Outcome { intent: 0x3132_3334_3536_3738 };
        let more = Open { acting_for, stage, ..open(Labels::List(vec![[7; 16]])) }.encode();
        assert_eq!((&more[..6], &more[6..8], &more[8..192]), (&bytes[..6], &[2, 2][..], &bytes[8..]));
        assert_eq!(more[192..211], [&[2][..], &[9; 16], &[0; 2]].concat());
        assert_eq!(more[211..230], [&[1][..], b"91310000000000001X"].concat());
        assert_eq!(more[230..], 0x3132_3334_3536_3738u64.to_be_bytes());
    }

    #[test]
    fn chains_and_stages_come_back_as_they_were() {
        for n in 0..7 {
            let chain = vec![[AGENT, BODY][n % 2]; n];
            for stage in [Stage::Whole, Stage::Intent, Stage::Outcome { intent: n as u64 }] {
                let acting_for = ActingFor::new(chain.clone());
                assert_eq!(matches!(acting_for, ActingFor::Digest(_)), n > 4);
                let open = Open { acting_for, stage, ..open(Labels::List(vec![[7; 16]; n.min(4)])) };
                assert_eq!(Open::parse(&open.encode()), Ok(open.clone()));
                let long = Open { acting_for: ActingFor::Chain(chain.clone()), ..open.clone() };
                assert_eq!(long.encode(), open.encode());
            }
        }
    }

    #[test]
    fn round_trip_with_any_number_of_labels() {
        for n in 0..7u8 {
            let open = open(Labels::new((0..n).map(|i| [i; 16]).collect()));
            let bytes = open.encode();
            assert_eq!(Open::parse(&bytes), Ok(open.clone()));
            assert_eq!(matches!(open.labels, Labels::Digest(_)), n > 4);
        }
        let long: Vec<_> = (0..6u8).map(|i| [i; 16]).collect();
        assert_eq!(open(Labels::List(long.clone())).encode(), open(Labels::new(long)).encode());
    }

    #[test]
    fn whatever_parses_encodes_to_the_same_bytes() {
        let acting_for = ActingFor::new(vec![BODY, AGENT]);
        let stage = Stage::Outcome { intent: 6 };
        let open = Open { acting_for, stage, ..open(Labels::List(vec![[7; 16], [8; 16]])) };
        let bytes = open.encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                if let Ok(parsed) = Open::parse(&changed) {
                    assert_eq!(parsed.encode(), changed);
                }
            }
        }
    }

    #[test]
    fn malformed_opens_are_refused() {
        let bytes = open(Labels::List(vec![[7; 16]])).encode();
        for length in 0..bytes.len() {
            assert_eq!(Open::parse(&bytes[..length]), Err(MalformedOpen));
        }
        let with = |at: usize, value: u8| {
            let mut changed = bytes.clone();
            changed[at] = value;
            Open::parse(&changed)
        };
        let wrong = [
            (0, 1),
            (0, 3),
            (2, 0),
            (2, 4),
            (3, 0),
            (3, 2),
            (3, 5),
            (3, 255),
            (6, 2),
            (6, 3),
            (7, 1),
            (47, 1),
        ];
        for (at, value) in wrong {
            assert_eq!(with(at, value), Err(MalformedOpen), "byte {at} = {value}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Open::parse(&longer), Err(MalformedOpen));
        // A party of no kind, and a person with more than a label.
        let acting = Open { acting_for: ActingFor::new(vec![AGENT]), ..open(Labels::List(Vec::new())) };
        for (at, value) in [(176, 0), (176, 3), (193, 1), (194, 1)] {
            let mut changed = acting.encode();
            changed[at] = value;
            assert_eq!(Open::parse(&changed), Err(MalformedOpen), "byte {at} = {value}");
        }
    }

    #[test]
    fn leaf_and_commitments_are_laid_out_as_the_format_says() {
        let leaf = leaf_bytes(LeafKind::ShardClose, &[9; 32]);
        assert_eq!((leaf[0], leaf[1]), (2, 4));
        assert_eq!(leaf[2..], [9; 32]);
        let open = open(Labels::List(vec![[7; 16]]));
        let blank = Open { index: 0, time_ms: 0, ..open.clone() };
        assert_eq!(open_digest(&open.encode()), sha256(&[&blank.encode()]));
        let mut flat = vec![1; 32];
        flat.extend_from_slice(&open.index.to_be_bytes());
        flat.extend_from_slice(&open.time_ms.to_be_bytes());
        flat.extend_from_slice(&open_digest(&open.encode()));
        flat.extend_from_slice(&[2; 32]);
        assert_eq!(commitment(&[1; 32], &open.encode(), &[2; 32]), sha256(&[&flat]));
        // What is no `open` has a commitment too, one that nothing else has.
        let short: Vec<_> = (0..30).map(|n| commitment(&[1; 32], &vec![7; n], &[2; 32])).collect();
        assert!(short.iter().enumerate().all(|(n, one)| !short[..n].contains(one)));
        let rr = sha256(&[b"rr"]);
        let mut flat = vec![3; 32];
        flat.extend_from_slice(&rr);
        flat.extend_from_slice(b"completion");
        assert_eq!(insider_digest(&[3; 32], &rr, b"completion"), sha256(&[&flat]));
        let told = told_digest(&[5; 32], &[4; 16], b"told");
        assert_eq!(told, sha256(&[&sha256(&[&[5; 32], &[4; 16]]), b"told"]));
        let link = HolderLink {
            label: [4; 16],
            told,
            sequence: 6,
            previous_chain: 11,
            previous_position: 10,
            previous_index: 7,
            previous_leaf: [8; 32],
        };
        let mut flat = vec![1];
        flat.extend_from_slice(&[4; 16]);
        flat.extend_from_slice(&told);
        flat.extend_from_slice(&6u64.to_be_bytes());
        flat.extend_from_slice(&11u32.to_be_bytes());
        for number in [10u64, 7] {
            flat.extend_from_slice(&number.to_be_bytes());
        }
        flat.extend_from_slice(&[8; 32]);
        assert_eq!(HolderLink::decode(&link.encode()), link);
        let digest = HolderLink::digest_of(&link.encode());
        assert_eq!(digest, sha256(&[&flat]));
        let place = sha256(&[&[3; 32], &link.encode()]);
        let oversight = sha256(&[&[2], &[4; 16], &told, &place]);
        assert_eq!(HolderLink::oversight_digest(&[4; 16], &told, &place), oversight);
        let record = insider_digest(&[3; 32], &rr, &[1, 0, 0, 1]);
        let completion = [&[1, 0, 0, 1][..], &link.encode()].concat();
        let c = inner_commitment_of(&[3; 32], b"rr", &completion);
        assert_eq!(c, Some(inner_commitment(&record, [digest])));
        let record = insider_digest(&[3; 32], &rr, &[2, 0, 0, 1]);
        let completion = [&[2, 0, 0, 1][..], &link.encode()].concat();
        let c = inner_commitment_of(&[3; 32], b"rr", &completion);
        assert_eq!(c, Some(inner_commitment(&record, [oversight])));
        for cut in 0..completion.len() {
            assert_eq!(inner_commitment_of(&[3; 32], b"rr", &completion[..cut]), None);
        }
        assert_eq!(inner_commitment(&[9; 32], [digest]), sha256(&[&[[9; 32], digest].concat()]));
        let root = statement_leaf(LeafKind::IndexRoot, b"root");
        assert_eq!((root[1], &root[2..]), (2, &sha256(&[b"root"])[..]));
    }
}
