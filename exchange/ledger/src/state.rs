//! The hot state in memory: everything a decision is made on, rebuilt from the journal by one function.
//!
//! Written by the sequencer thread alone (and by recovery before it starts), read by anyone; reads copy out. The
//! state holds durable entries only: the sequencer applies a group after its `fdatasync` and before it releases
//! the group's answers, so no reader sees what could still be lost, and every caller sees its own writes.

use crate::{
    journal::{
        cursor::Cursor,
        record::{Completion, NO_BODY_PART, Record},
    },
    keys::{
        crypt::{Crypt, HolderKey},
        secrets::FIRST_EPOCH,
    },
    names::{Hash, Key, Label, Position},
};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash as Hashed,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use zeroize::Zeroizing;

/// How long an idempotency key lives, in ms of journal time.
pub(crate) const IDEMPOTENCY_MS: u64 = 24 * 3600 * 1000;
/// China Standard Time is UTC+8 all year.
const CST_OFFSET_MS: u64 = 8 * 3600 * 1000;
const MS_PER_DAY: u64 = 86_400_000;

const TAKEN_OVER: u8 = 1;
const WRITTEN_BY_04: u8 = 2;

/// A document that is no license.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// A participant of the register.
    Participant,
    /// A license type's definition.
    LicenseType,
    /// What was fixed when the log was made.
    Rules,
    /// A link between a holder and a guardian or agent.
    Link,
    /// What an operator proposes and another one approves.
    Proposal,
    /// A legal hold on a holder, by label.
    Hold,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Participant, Self::LicenseType, Self::Rules, Self::Link, Self::Proposal, Self::Hold];

    /// The number in the record.
    pub const fn number(self) -> u8 {
        match self {
            Self::Participant => 1,
            Self::LicenseType => 2,
            Self::Rules => 3,
            Self::Link => 4,
            Self::Proposal => 5,
            Self::Hold => 6,
        }
    }
}

/// A fact with a version; version 0 is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A license.
    License(Key),
    /// A grant, by its id.
    Grant(Key),
    /// A living holder, by keyed hash: a number made of the label, so that who is erased and appears again, under a
    /// new label, is another fact.
    Holder(Key),
    /// Which licenses name a holder, by label: their number, which only grows.
    Licenses(Label),
    /// A document.
    Document(DocumentKind, Key),
    /// An idempotency key: 1 while bound.
    Idempotency(Key),
    /// The epoch that new holders' keys are wrapped for: its number.
    Epoch,
}

/// A license as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct License {
    /// Fact version.
    pub version: u32,
    /// State number (section 8 of the formats).
    pub state: u8,
    /// 版本号 in force.
    pub certificate_version: u16,
    /// First valid day, days since 1970.
    pub valid_from_day: i32,
    /// Last valid day, days since 1970; `i32::MAX` = no end.
    pub valid_until_day: i32,
    /// Another license has taken this one over.
    pub taken_over: bool,
    /// Operation 04 wrote state 05.
    pub written_by_04: bool,
    /// Keyed hash of type and number, 8 bytes.
    pub number_tag: u64,
    /// Labels of all holders.
    pub holders: Vec<Label>,
    /// The sealed part that holds the body.
    pub body: Position,
}

impl License {
    /// Whether it is in force or on its way to another authority: 01, 02, and 06 until it is taken over.
    pub fn stands(&self) -> bool {
        stands(self.state, self.taken_over)
    }
}

fn stands(state: u8, taken_over: bool) -> bool {
    schemas::state::LicenseState::from_number(state).is_none_or(|state| !state.is_final()) && !taken_over
}

/// A license in memory.
#[derive(Clone, Debug)]
struct LicenseCell {
    number_tag: u64,
    body: Position,
    parties: Parties,
    version: u32,
    valid_from_day: i32,
    valid_until_day: i32,
    certificate_version: u16,
    state: u8,
    flags: u8,
}

// 48 bytes and a key of 16 are the 64 bytes that a license may cost.
const _: () = assert!(size_of::<LicenseCell>() <= 48);

/// The issuer of a license and its holders, as indexes into `State::issuers` and `State::labels`. Almost every license has
/// one holder, a marriage license two. The issuer stands in each variant, where it takes the place of padding.
#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "a thin pointer keeps a license at 48 bytes")]
enum Parties {
    One(u32, u32),
    Two(u32, [u32; 2]),
    More(u32, Box<Vec<u32>>),
}

impl Parties {
    fn new(issuer: u32, holders: Vec<u32>) -> Self {
        match holders[..] {
            [one] => Self::One(issuer, one),
            [one, two] => Self::Two(issuer, [one, two]),
            _ => Self::More(issuer, Box::new(holders)),
        }
    }

    fn issuer(&self) -> u32 {
        match self {
            Self::One(issuer, _) | Self::Two(issuer, _) | Self::More(issuer, _) => *issuer,
        }
    }

    fn holders(&self) -> &[u32] {
        match self {
            Self::One(_, one) => std::slice::from_ref(one),
            Self::Two(_, two) => two,
            Self::More(_, more) => more,
        }
    }
}

/// Organisations that have issued a license; only ever more.
#[derive(Default)]
struct Issuers {
    organisations: Vec<[u8; 18]>,
    indexes: HashMap<[u8; 18], u32>,
}

/// A grant as it stands; the fields are those of [`crate::record::GrantState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The key that its id is a keyed hash of: its name on the disk.
    pub key: Key,
    /// Fact version.
    pub version: u32,
    /// 1 active, 2 paused, 3 revoked.
    pub state: u8,
    /// Label of the holder who grants.
    pub holder: Label,
    /// USCC of the organisation that may use it.
    pub grantee: [u8; 18],
    /// Keyed hash of the license or of the type code.
    pub target: Key,
    /// Whether `target` is a type.
    pub target_is_type: bool,
    /// Modes, as bits.
    pub modes: u8,
    /// Fields that may be disclosed, as bits.
    pub fields: u64,
    /// Keyed hash of the item; 0 = any.
    pub item_tag: u64,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// Uses allowed; 0 = without limit.
    pub max_uses: u32,
    /// USCC of the portal that vouched for the holder.
    pub portal: [u8; 18],
}

/// A document as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Fact version.
    pub version: u32,
    /// The document.
    pub value: Arc<[u8]>,
}

/// A holder's latest entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of entries that concern the holder.
    pub sequence: u64,
    /// Frame of the latest; [`Position::NONE`] before the first.
    pub frame: Position,
    /// Index of the latest.
    pub index: u64,
    /// Leaf hash of the latest.
    pub leaf_hash: Hash,
}

impl Head {
    fn encode(&self) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.frame.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_be_bytes());
        bytes[24..].copy_from_slice(&self.leaf_hash);
        bytes
    }

    fn take(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            sequence: u64::from_be_bytes(take(rest)?),
            frame: Position(u64::from_be_bytes(take(rest)?)),
            index: u64::from_be_bytes(take(rest)?),
            leaf_hash: take(rest)?,
        })
    }
}

/// A use that its holders are not told of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// Index of its entry.
    pub index: u64,
    /// From when on it may be told, ms since 1970.
    pub release_ms: u64,
    /// Labels of the holders it concerns.
    pub holders: Vec<Label>,
}

/// A holder as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Fact version; 0 once erased.
    pub version: u32,
    /// Keyed hash of type code and number; zeros once erased.
    pub key: Key,
    /// The label.
    pub label: Label,
    /// Epoch that the holder's key was born in.
    pub epoch: u32,
    /// The key is destroyed, and nothing sealed under it can be read any more.
    pub erased: bool,
    /// Journal time (ms since 1970) at which a license last ended, or was written after its end; 0 before that.
    pub ended_ms: u64,
    /// The latest entry.
    pub head: Head,
}

/// A holder in memory.
struct HolderCell {
    key: Key,
    index: u32,
    epoch: u32,
    /// `None` once erased, and while replay has not met the place that holds it. In a box of its own: the table moves
    /// its cells when it grows, and what it leaves behind is not overwritten.
    secret: Option<Box<Zeroizing<[u8; 32]>>>,
    erased: bool,
    ended_ms: u64,
    head: Head,
    licenses: Vec<Key>,
}

/// What the allocator takes for a key's box.
const BOX_BYTES: usize = 48;
const _: () = assert!(size_of::<HolderCell>() + size_of::<Label>() + BOX_BYTES <= 192);

/// The fact version of a living holder.
pub(crate) fn label_version(label: &Label) -> u32 {
    u32::from_be_bytes(*label.first_chunk().expect("a label has 16 bytes")) | 1
}

/// A bound idempotency key: where the original answer and receipt stand. See [`crate::Ledger::original`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Keyed hash of the request that bound it.
    pub request: Key,
    /// Index of its entry.
    pub index: u64,
    /// Journal time of its entry.
    pub time_ms: u64,
    /// USCC of the organisation.
    pub organisation: [u8; 18],
    pub(crate) answer: Position,
    pub(crate) frame: Position,
}

/// Bound keys by age, for the two bounds. Ordered by index, so that replaying an older part of the journal once
/// more drops the same keys again.
#[derive(Default)]
struct Order {
    all: BTreeMap<u64, Key>,
    organisations: HashMap<[u8; 18], BTreeSet<u64>>,
}

impl Order {
    fn remove(&mut self, bound: &Bound) {
        self.all.remove(&bound.index);
        if let Some(indexes) = self.organisations.get_mut(&bound.organisation) {
            indexes.remove(&bound.index);
            if indexes.is_empty() {
                self.organisations.remove(&bound.organisation);
            }
        }
    }

    fn insert(&mut self, key: Key, bound: &Bound) {
        self.all.insert(bound.index, key);
        self.organisations.entry(bound.organisation).or_default().insert(bound.index);
    }
}

/// How much the state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Licenses.
    pub licenses: usize,
    /// Grants.
    pub grants: usize,
    /// Holders.
    pub holders: usize,
    /// Documents.
    pub documents: usize,
    /// Live idempotency keys.
    pub idempotency: usize,
}

/// What [`State::apply`] takes beside the record: everything about the entry that the journal decides.
pub(crate) struct Applied<'a> {
    pub(crate) index: u64,
    pub(crate) time_ms: u64,
    pub(crate) organisation: [u8; 18],
    pub(crate) leaf_hash: Hash,
    pub(crate) frame: Position,
    /// Position of each subject part.
    pub(crate) parts: &'a [Position],
    pub(crate) record: &'a Record,
    pub(crate) completion: &'a Completion,
}

/// Kinds of values in the restart image and the state digest. Holders come before licenses, which refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
enum Kind {
    Holder = 1,
    License = 2,
    Grant = 3,
    Document = 4,
    Counter = 5,
    Idempotency = 6,
    Oversight = 10,
    Delayed = 11,
    /// The epochs; one value.
    Epoch = 16,
    /// A holder's key, wrapped: in the restart image alone. The journal and the epoch's key file are its truth.
    HolderKey = 17,
}

/// A license's value without the labels of its holders, which stand behind it: see [`State::encode_license`].
const LICENSE_BYTES: usize = 8 + 8 + 4 + 4 + 4 + 2 + 1 + 1 + 18;

/// Names one value of the state in the restart image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    kind: Kind,
    key: [u8; 16],
    /// Document kind or counter day; 0 for all else.
    sub: u32,
}

impl Slot {
    pub(crate) const BYTES: usize = 21;

    const fn new(kind: Kind, key: Key, sub: u32) -> Self {
        Self { kind, key, sub }
    }

    /// The slot of a delayed use: its index in place of a key.
    fn of_delayed(index: u64) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&index.to_be_bytes());
        Self::new(Kind::Delayed, key, 0)
    }

    /// The index in the slot of a delayed use.
    fn delayed_index(&self) -> u64 {
        u64::from_be_bytes(*self.key.first_chunk().expect("a key has 16 bytes"))
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.kind as u8;
        bytes[1..17].copy_from_slice(&self.key);
        bytes[17..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    /// Whether it is a holder's, which is loaded before all that names it.
    pub(crate) fn is_holder(&self) -> bool {
        self.kind == Kind::Holder
    }

    /// The slots of the holders that a value under this slot names so that it cannot be loaded without them.
    pub(crate) fn named<'a>(&self, value: &'a [u8]) -> impl Iterator<Item = Self> + 'a {
        let labels = if self.kind == Kind::License { value.get(LICENSE_BYTES..) } else { None };
        let labels = labels.unwrap_or_default().as_chunks::<16>().0;
        labels.iter().map(|label| Self::new(Kind::Holder, *label, 0))
    }

    /// Whether the digest of the state holds it.
    pub(crate) fn is_digested(&self) -> bool {
        self.kind != Kind::HolderKey
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let kind = match bytes[0] {
            1 => Kind::Holder,
            2 => Kind::License,
            3 => Kind::Grant,
            4 => Kind::Document,
            5 => Kind::Counter,
            6 => Kind::Idempotency,
            10 => Kind::Oversight,
            11 => Kind::Delayed,
            16 => Kind::Epoch,
            17 => Kind::HolderKey,
            _ => return None,
        };
        Some(Self::new(kind, *bytes[1..].first_chunk()?, u32::from_be_bytes(*bytes.last_chunk()?)))
    }
}

/// Keys are keyed hashes and random labels, which nobody outside can choose: a fast hash is enough.
type Map<K, V> = DashMap<K, V, FxBuildHasher>;

/// Shards of a map. The sequencer waits for whoever reads one from end to end, and moves all of it when it grows: of 5,000,000
/// licenses 20,000.
const SHARDS: usize = 256;

fn map<K: Eq + Hashed, V>() -> Map<K, V> {
    Map::with_hasher_and_shard_amount(FxBuildHasher, SHARDS)
}

/// The keys of a map; each shard is locked while its own are copied.
fn keys<K: Eq + Hashed + Copy, V>(map: &Map<K, V>) -> Vec<K> {
    gathered(map, |key, _| *key)
}

/// Something of each pair of a map; each shard is locked while its own are visited.
fn gathered<K: Eq + Hashed, V, T>(map: &Map<K, V>, take: impl Fn(&K, &V) -> T) -> Vec<T> {
    let count = map.len();
    // It may grow meanwhile, and growing the list would take long under a lock.
    let mut gathered = Vec::with_capacity(count + count / 16 + 1024);
    gathered.extend(map.iter().map(|pair| take(pair.key(), pair.value())));
    gathered
}

/// What an owner has in an index, from behind `after` on.
fn page_of<O: Copy + Ord>(
    index: &RwLock<BTreeSet<(O, Key)>>,
    owner: &O,
    after: Option<&Key>,
    count: usize,
) -> Vec<Key> {
    let from = after.map_or(std::ops::Bound::Included((*owner, [0; 16])), |after| {
        std::ops::Bound::Excluded((*owner, *after))
    });
    let index = index.read().unwrap_or_else(PoisonError::into_inner);
    let owned = index.range((from, std::ops::Bound::Included((*owner, [255; 16]))));
    owned.take(count).map(|(_, id)| *id).collect()
}

/// The state. See the module's page for who writes and who reads.
pub struct State {
    crypt: Arc<Crypt>,
    idempotency_per_organisation: usize,
    licenses: Map<Key, LicenseCell>,
    issuers: RwLock<Issuers>,
    /// Keys of licenses by the index of their issuer.
    issued: RwLock<BTreeSet<(u32, Key)>>,
    /// By id.
    grants: Map<Key, Grant>,
    /// Ids of grants by the label of the holder who made them.
    grants_of: RwLock<BTreeSet<(Label, Key)>>,
    /// Ids of grants by who may use them.
    grants_to: RwLock<BTreeSet<([u8; 18], Key)>>,
    /// By kind, at the kind's number less one.
    documents: [Map<Key, Document>; DocumentKind::ALL.len()],
    holders: Map<Label, HolderCell>,
    labels_by_key: Map<Key, Label>,
    /// Latest entry of each oversight sequence. Few holders have one, so it is no part of the holder's cell.
    oversight: Map<Label, Head>,
    /// Delayed uses that are not released yet, by index.
    delayed: Map<u64, Delayed>,
    /// Holder index to label; only ever longer.
    labels: RwLock<Vec<Label>>,
    counters: Map<(Key, u32), u32>,
    idempotency: Map<Key, Bound>,
    /// Locked by the writer only.
    order: Mutex<Order>,
    /// Day in China Standard Time of the latest entry.
    today: AtomicU32,
    /// Entries that some values may know of: one more than `applied` while an entry is being applied.
    begun: AtomicU64,
    /// Entries applied: index of the latest + 1.
    applied: AtomicU64,
    time_ms: AtomicU64,
    /// The epoch whose key wraps the keys of new holders.
    epoch: AtomicU32,
    /// Journal time at which it began.
    epoch_since_ms: AtomicU64,
    /// The last epoch whose key was destroyed.
    destroyed: AtomicU32,
}

/// The slot of the epochs.
const EPOCH_SLOT: Slot = Slot::new(Kind::Epoch, [0; 16], 0);

impl State {
    pub(crate) fn new(crypt: Arc<Crypt>, idempotency_per_organisation: usize) -> Self {
        Self {
            crypt,
            idempotency_per_organisation,
            licenses: map(),
            issuers: RwLock::default(),
            issued: RwLock::default(),
            grants: map(),
            grants_of: RwLock::default(),
            grants_to: RwLock::default(),
            documents: std::array::from_fn(|_| map()),
            holders: map(),
            labels_by_key: map(),
            oversight: map(),
            delayed: map(),
            labels: RwLock::default(),
            counters: map(),
            idempotency: map(),
            order: Mutex::default(),
            today: AtomicU32::new(0),
            begun: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            time_ms: AtomicU64::new(0),
            epoch: AtomicU32::new(FIRST_EPOCH),
            epoch_since_ms: AtomicU64::new(0),
            destroyed: AtomicU32::new(FIRST_EPOCH - 1),
        }
    }

    /// A license by the keyed hash of type, issuer and serial.
    pub fn license(&self, key: &Key) -> Option<License> {
        let cell = self.licenses.get(key)?.value().clone();
        Some(self.opened(&cell))
    }

    /// A license of no number and no body, held by whoever came first: as much work as reading one that was found, for
    /// where there is none.
    pub fn no_license(&self) -> License {
        let cell = LicenseCell {
            number_tag: 0,
            body: Position::NONE,
            parties: Parties::One(0, 0),
            version: 0,
            valid_from_day: 0,
            valid_until_day: 0,
            certificate_version: 0,
            state: 0,
            flags: 0,
        };
        self.opened(&cell)
    }

    fn opened(&self, cell: &LicenseCell) -> License {
        License {
            version: cell.version,
            state: cell.state,
            certificate_version: cell.certificate_version,
            valid_from_day: cell.valid_from_day,
            valid_until_day: cell.valid_until_day,
            taken_over: cell.flags & TAKEN_OVER != 0,
            written_by_04: cell.flags & WRITTEN_BY_04 != 0,
            number_tag: cell.number_tag,
            holders: self.labels_of(&cell.parties),
            body: cell.body,
        }
    }

    /// The tag of a license's number, and the version of the license that has it.
    pub fn number_tag(&self, key: &Key) -> Option<(u64, u32)> {
        self.licenses.get(key).map(|license| (license.number_tag, license.version))
    }

    /// At most `count` keys of the licenses that an organisation has issued, ended ones too, ascending, behind `after`.
    pub fn issued(&self, issuer: &[u8; 18], after: Option<&Key>, count: usize) -> Vec<Key> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        let index = issuers.indexes.get(issuer).copied();
        drop(issuers);
        index.map(|index| page_of(&self.issued, &index, after, count)).unwrap_or_default()
    }

    /// A grant by its id.
    pub fn grant(&self, id: &Key) -> Option<Grant> {
        self.grants.get(id).map(|grant| grant.clone())
    }

    /// At most `count` ids of the grants that a holder made, ascending, behind `after`.
    pub fn grants_of(&self, holder: &Label, after: Option<&Key>, count: usize) -> Vec<Key> {
        page_of(&self.grants_of, holder, after, count)
    }

    /// At most `count` ids of the grants that an organisation may use, ascending, behind `after`.
    pub fn grants_to(&self, grantee: &[u8; 18], after: Option<&Key>, count: usize) -> Vec<Key> {
        page_of(&self.grants_to, grantee, after, count)
    }

    fn put_grant(&self, grant: Grant) {
        let (id, holder, grantee) = (self.grant_id(&grant.key), grant.holder, grant.grantee);
        // Whose it is never changes.
        if self.grants.insert(id, grant).is_none() {
            self.grants_of.write().unwrap_or_else(PoisonError::into_inner).insert((holder, id));
            self.grants_to.write().unwrap_or_else(PoisonError::into_inner).insert((grantee, id));
        }
    }

    /// The id of the grant with a key.
    pub fn grant_id(&self, key: &Key) -> Key {
        self.crypt.grant_id(key)
    }

    /// The documents of a kind; `None` for a number that no kind has.
    fn of_kind(&self, number: u8) -> Option<&Map<Key, Document>> {
        self.documents.get(usize::from(number).checked_sub(1)?)
    }

    /// A document by kind and key.
    pub fn document(&self, kind: DocumentKind, key: &Key) -> Option<Document> {
        self.of_kind(kind.number())?.get(key).map(|document| document.clone())
    }

    /// All documents of a kind, in no particular order.
    pub fn documents(&self, kind: DocumentKind) -> Vec<(Key, Document)> {
        let of_kind = self.of_kind(kind.number()).into_iter().flatten();
        of_kind.map(|document| (*document.key(), document.value().clone())).collect()
    }

    /// A living holder by the keyed hash of type code and number.
    pub fn holder(&self, key: &Key) -> Option<Holder> {
        let label = *self.labels_by_key.get(key)?;
        self.holder_by_label(&label)
    }

    /// A holder by label, erased ones too.
    pub fn holder_by_label(&self, label: &Label) -> Option<Holder> {
        let cell = self.holders.get(label)?;
        Some(Holder {
            version: if cell.erased { 0 } else { label_version(label) },
            key: cell.key,
            label: *label,
            epoch: cell.epoch,
            erased: cell.erased,
            ended_ms: cell.ended_ms,
            head: cell.head,
        })
    }

    /// Keys of the licenses that name a holder, in no particular order. Their number is [`Fact::Licenses`].
    pub fn licenses_of(&self, label: &Label) -> Vec<Key> {
        self.holders.get(label).map(|holder| holder.licenses.clone()).unwrap_or_default()
    }

    /// A holder's key; `None` when there is no such holder or it is erased.
    pub fn holder_key(&self, label: &Label) -> Option<HolderKey> {
        let cell = self.holders.get(label)?;
        cell.secret.as_ref().map(|secret| HolderKey::new(*label, secret))
    }

    /// The epoch whose key wraps the keys of new holders.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Journal time (ms since 1970) at which the epoch began; of the first entry for the first epoch, 0 before it.
    pub fn epoch_since_ms(&self) -> u64 {
        self.epoch_since_ms.load(Ordering::Acquire)
    }

    /// The last epoch whose key was destroyed; 0 before the first.
    pub fn epoch_destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::Acquire)
    }

    /// Whether an epoch has begun and the key of the one before is not destroyed yet.
    pub fn is_rotating(&self) -> bool {
        self.epoch_destroyed() + 1 < self.epoch()
    }

    /// Gives a living holder that has none its key.
    pub(crate) fn give_key(&self, label: &Label, key: impl FnOnce() -> Option<HolderKey>) {
        if let Some(mut cell) =
            self.holders.get_mut(label).filter(|cell| !cell.erased && cell.secret.is_none())
        {
            cell.secret = key().map(|key| key.secret());
        }
    }

    /// Whether every living holder has its key.
    pub(crate) fn keys_are_complete(&self) -> bool {
        self.holders.iter().all(|cell| cell.erased || cell.secret.is_some())
    }

    /// At most `count` labels from the `from`-th on, in an order that does not change while the process runs.
    pub(crate) fn labels_from(&self, from: usize, count: usize) -> Vec<Label> {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        labels.iter().skip(from).take(count).copied().collect()
    }

    /// A counter's value; 0 when it was never raised.
    pub fn counter(&self, key: &Key, day: u32) -> u32 {
        self.counters.get(&(*key, day)).map_or(0, |value| *value)
    }

    /// What an idempotency key is bound to.
    pub fn idempotency(&self, key: &Key) -> Option<Bound> {
        self.idempotency.get(key).map(|bound| *bound)
    }

    /// The version of a fact; 0 when it is absent.
    pub fn version(&self, fact: &Fact) -> u32 {
        match fact {
            Fact::License(key) => self.licenses.get(key).map_or(0, |license| license.version),
            Fact::Grant(id) => self.grants.get(id).map_or(0, |grant| grant.version),
            Fact::Holder(key) => self.labels_by_key.get(key).map_or(0, |label| label_version(&label)),
            Fact::Licenses(label) => {
                let licenses = self.holders.get(label).map_or(0, |holder| holder.licenses.len());
                u32::try_from(licenses).unwrap_or(u32::MAX)
            }
            Fact::Document(kind, key) => {
                let document = self.of_kind(kind.number()).and_then(|documents| documents.get(key));
                document.map_or(0, |document| document.version)
            }
            Fact::Idempotency(key) => u32::from(self.idempotency.contains_key(key)),
            Fact::Epoch => self.epoch(),
        }
    }

    /// How much there is of each.
    pub fn counts(&self) -> Counts {
        Counts {
            licenses: self.licenses.len(),
            grants: self.grants.len(),
            holders: self.holders.len(),
            documents: self.documents.iter().map(|of_kind| of_kind.len()).sum(),
            idempotency: self.idempotency.len(),
        }
    }

    /// Entries applied, all of them durable.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Asked after values were read: they know of no later entry than the last one below this, all of them durable. The
    /// sequencer may be in the middle of that one.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Journal time of the latest entry, ms since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms.load(Ordering::Acquire)
    }

    pub(crate) fn head(&self, label: &Label) -> Option<Head> {
        self.holders.get(label).map(|holder| holder.head)
    }

    /// Latest entry of a holder's oversight sequence.
    pub(crate) fn oversight_head(&self, label: &Label) -> Option<Head> {
        self.oversight.get(label).map(|head| *head)
    }

    /// Delayed uses of all holders that are not released.
    pub fn delayed_uses(&self) -> usize {
        self.delayed.len()
    }

    /// The use with an index, if it is delayed and not released.
    pub fn delayed(&self, index: u64) -> Option<Delayed> {
        self.delayed.get(&index).map(|delayed| delayed.clone())
    }

    /// Delayed uses that may be told at this moment (ms since 1970), oldest first.
    pub fn due(&self, now_ms: u64) -> Vec<Delayed> {
        let due = self.delayed.iter().filter(|delayed| delayed.release_ms <= now_ms);
        let mut due: Vec<Delayed> = due.map(|delayed| delayed.clone()).collect();
        due.sort_unstable_by_key(|delayed| (delayed.release_ms, delayed.index));
        due
    }

    /// Every holder with an entry: label, number of entries, leaf hash of the last.
    pub(crate) fn heads(&self) -> Vec<(Label, u64, Hash)> {
        let holders = self.holders.iter().filter(|holder| holder.head.sequence > 0);
        holders.map(|holder| (*holder.key(), holder.head.sequence, holder.head.leaf_hash)).collect()
    }

    pub(crate) fn knows_label(&self, label: &Label) -> bool {
        self.holders.contains_key(label)
    }

    /// Whether a holder is erased; `None` for a label that nobody has.
    pub(crate) fn erased(&self, label: &Label) -> Option<bool> {
        self.holders.get(label).map(|cell| cell.erased)
    }

    /// Applies one entry; used by the sequencer and by replay alike.
    ///
    /// Idempotent: every value is set to what the record and the completion say, never to a difference. Replay may
    /// therefore begin before the entry that the restart image was made at and still ends in the same state.
    pub(crate) fn apply(&self, entry: &Applied<'_>, changed: &mut Vec<Slot>) {
        // Before any value: whoever reads one of them, under its lock, sees this too.
        self.begun.store(entry.index + 1, Ordering::Release);
        self.turn_day(entry.time_ms, changed);
        self.turn_epoch(entry, changed);
        for holder in &entry.record.new_holders {
            self.adopt(holder.label, holder.key, holder.epoch, false);
            self.give_key(&holder.label, || {
                self.crypt.unwrap_holder(&holder.label, holder.epoch, &holder.wrapped)
            });
            changed.push(Slot::new(Kind::Holder, holder.label, 0));
            changed.push(Slot::new(Kind::HolderKey, holder.label, 0));
        }
        for license in &entry.record.licenses {
            let old = self.licenses.get(&license.key).map(|old| (old.body, old.parties.issuer()));
            // The writer of the first version issued it, and only an issuing authority does.
            let issuer = old.map_or_else(|| self.issuer_index(&entry.organisation), |(_, issuer)| issuer);
            let body = if license.body_part == NO_BODY_PART {
                old.map_or(Position::NONE, |(body, _)| body)
            } else {
                entry.parts.get(usize::from(license.body_part)).copied().unwrap_or(Position::NONE)
            };
            let flags = if license.taken_over { TAKEN_OVER } else { 0 }
                | if license.written_by_04 { WRITTEN_BY_04 } else { 0 };
            let cell = LicenseCell {
                number_tag: license.number_tag,
                body,
                parties: Parties::new(issuer, self.indexes_of(&license.holders)),
                version: license.version,
                valid_from_day: license.valid_from_day,
                valid_until_day: license.valid_until_day,
                certificate_version: license.certificate_version,
                state: license.state,
                flags,
            };
            self.put_license(license.key, cell);
            changed.push(Slot::new(Kind::License, license.key, 0));
            if !stands(license.state, license.taken_over) {
                for label in &license.holders {
                    if let Some(mut holder) = self.holders.get_mut(label) {
                        holder.ended_ms = entry.time_ms;
                        changed.push(Slot::new(Kind::Holder, *label, 0));
                    }
                }
            }
        }
        for grant in &entry.record.grants {
            let value = Grant {
                key: grant.key,
                version: grant.version,
                state: grant.state,
                holder: grant.holder,
                grantee: grant.grantee,
                target: grant.target,
                target_is_type: grant.target_is_type,
                modes: grant.modes,
                fields: grant.fields,
                item_tag: grant.item_tag,
                until_ms: grant.until_ms,
                max_uses: grant.max_uses,
                portal: grant.portal,
            };
            self.put_grant(value);
            changed.push(Slot::new(Kind::Grant, grant.key, 0));
        }
        for document in &entry.record.documents {
            // Admission refuses a kind that there is not.
            let Some(of_kind) = self.of_kind(document.kind) else { continue };
            let value = Document { version: document.version, value: document.value.as_slice().into() };
            of_kind.insert(document.key, value);
            changed.push(Slot::new(Kind::Document, document.key, document.kind.into()));
        }
        for (counter, value) in entry.record.counters.iter().zip(&entry.completion.counters) {
            if *value > 0 {
                self.counters.insert((counter.key, counter.day), *value);
                changed.push(Slot::new(Kind::Counter, counter.key, counter.day));
            }
        }
        for (label, link) in entry.record.concerned.iter().zip(&entry.completion.links) {
            let head = Head {
                sequence: link.sequence,
                frame: entry.frame,
                index: entry.index,
                leaf_hash: entry.leaf_hash,
            };
            if entry.completion.delayed {
                self.oversight.insert(*label, head);
                changed.push(Slot::new(Kind::Oversight, *label, 0));
            } else if let Some(mut holder) = self.holders.get_mut(label) {
                holder.head = head;
                changed.push(Slot::new(Kind::Holder, *label, 0));
            }
        }
        if entry.completion.delayed {
            let (release_ms, holders) = (entry.record.release_ms, entry.record.concerned.clone());
            self.delayed.insert(entry.index, Delayed { index: entry.index, release_ms, holders });
            changed.push(Slot::of_delayed(entry.index));
        }
        for index in &entry.record.released {
            self.delayed.remove(index);
            changed.push(Slot::of_delayed(*index));
        }
        for label in &entry.record.erased {
            self.erase(label, changed);
            changed.push(Slot::new(Kind::Holder, *label, 0));
            changed.push(Slot::new(Kind::HolderKey, *label, 0));
        }
        self.bind(entry, changed);
        self.time_ms.store(entry.time_ms, Ordering::Release);
        self.applied.store(entry.index + 1, Ordering::Release);
    }

    /// Holds up whoever applies an entry, with everything done but the idempotency keys, until it is dropped.
    #[cfg(test)]
    pub(crate) fn stop_before_binding(&self) -> impl Sized + '_ {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops counters of days before yesterday when the journal's day changes.
    fn turn_day(&self, time_ms: u64, changed: &mut Vec<Slot>) {
        let today = cst_day(time_ms);
        if self.today.swap(today, Ordering::Relaxed) == today {
            return;
        }
        self.counters.retain(|(key, day), _| {
            let keep = *day == 0 || day.saturating_add(1) >= today;
            if !keep {
                changed.push(Slot::new(Kind::Counter, *key, *day));
            }
            keep
        });
    }

    fn turn_epoch(&self, entry: &Applied<'_>, changed: &mut Vec<Slot>) {
        let record = entry.record;
        let first = self.epoch_since_ms() == 0;
        if !first && record.epoch_begun == 0 && record.epoch_destroyed == 0 {
            return;
        }
        if record.epoch_begun != 0 {
            self.epoch.store(record.epoch_begun, Ordering::Release);
            self.crypt.begin_epoch(record.epoch_begun);
        }
        if first || record.epoch_begun != 0 {
            self.epoch_since_ms.store(entry.time_ms, Ordering::Release);
        }
        if record.epoch_destroyed != 0 {
            self.destroyed.store(record.epoch_destroyed, Ordering::Release);
        }
        changed.push(EPOCH_SLOT);
    }

    /// Destroys a holder's key and forgets whose label it is; the label, its licenses and its head stay. Of delayed uses
    /// only the living are told.
    fn erase(&self, label: &Label, changed: &mut Vec<Slot>) {
        self.delayed.retain(|index, delayed| {
            if delayed.holders.contains(label) {
                delayed.holders.retain(|holder| holder != label);
                changed.push(Slot::of_delayed(*index));
            }
            !delayed.holders.is_empty()
        });
        let Some(mut cell) = self.holders.get_mut(label) else { return };
        cell.secret = None;
        cell.erased = true;
        let key = std::mem::take(&mut cell.key);
        drop(cell);
        // The same person may have a new label already, where replay begins behind that.
        self.labels_by_key.remove_if(&key, |_, linked| linked == label);
    }

    fn adopt(&self, label: Label, key: Key, epoch: u32, erased: bool) {
        if !erased {
            self.labels_by_key.insert(key, label);
        }
        if let Some(mut known) = self.holders.get_mut(&label) {
            (known.key, known.epoch, known.erased) = (key, epoch, erased);
            return;
        }
        // The writer alone makes it longer. A label that stands in it has its holder: see `walk`.
        let index = self.labels.read().unwrap_or_else(PoisonError::into_inner).len() as u32;
        let cell = HolderCell {
            key,
            index,
            epoch,
            secret: None,
            erased,
            ended_ms: 0,
            head: Head::default(),
            licenses: Vec::new(),
        };
        self.holders.insert(label, cell);
        self.labels.write().unwrap_or_else(PoisonError::into_inner).push(label);
    }

    fn put_license(&self, key: Key, cell: LicenseCell) {
        let after = cell.parties.clone();
        let before = self.licenses.insert(key, cell).map(|old| old.parties);
        if before.is_none() {
            // The issuer never changes.
            self.issued.write().unwrap_or_else(PoisonError::into_inner).insert((after.issuer(), key));
        }
        let before = before.as_ref().map_or(&[][..], Parties::holders);
        for index in before.iter().filter(|index| !after.holders().contains(index)) {
            self.with_holder(*index, |holder| holder.licenses.retain(|license| *license != key));
        }
        for index in after.holders().iter().filter(|index| !before.contains(index)) {
            self.with_holder(*index, |holder| {
                if !holder.licenses.contains(&key) {
                    holder.licenses.push(key);
                }
            });
        }
    }

    fn with_holder(&self, index: u32, change: impl FnOnce(&mut HolderCell)) {
        let label = self.labels.read().unwrap_or_else(PoisonError::into_inner).get(index as usize).copied();
        if let Some(mut holder) = label.and_then(|label| self.holders.get_mut(&label)) {
            change(&mut holder);
        }
    }

    /// The index of an issuer, who gets one with the first license. The writer alone makes the list longer.
    fn issuer_index(&self, organisation: &[u8; 18]) -> u32 {
        let known =
            self.issuers.read().unwrap_or_else(PoisonError::into_inner).indexes.get(organisation).copied();
        known.unwrap_or_else(|| {
            let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
            let index = issuers.organisations.len() as u32;
            issuers.organisations.push(*organisation);
            issuers.indexes.insert(*organisation, index);
            index
        })
    }

    /// Indexes of known labels; admission refuses records that name unknown ones.
    fn indexes_of(&self, labels: &[Label]) -> Vec<u32> {
        labels.iter().filter_map(|label| self.holders.get(label).map(|holder| holder.index)).collect()
    }

    fn labels_of(&self, parties: &Parties) -> Vec<Label> {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        parties.holders().iter().filter_map(|index| labels.get(*index as usize).copied()).collect()
    }

    /// Binds the entry's idempotency key and drops those that are over the bound or too old.
    fn bind(&self, entry: &Applied<'_>, changed: &mut Vec<Slot>) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wanted) = entry.record.idempotency {
            let bound = Bound {
                request: wanted.request,
                index: entry.index,
                time_ms: entry.time_ms,
                organisation: entry.organisation,
                answer: entry.parts.get(usize::from(wanted.answer_part)).copied().unwrap_or(Position::NONE),
                frame: entry.frame,
            };
            if let Some(old) = self.idempotency.insert(wanted.key, bound) {
                order.remove(&old);
            }
            order.insert(wanted.key, &bound);
            changed.push(Slot::new(Kind::Idempotency, wanted.key, 0));
            let indexes = order.organisations.get(&entry.organisation);
            if let Some(oldest) =
                indexes.filter(|set| set.len() > self.idempotency_per_organisation).and_then(BTreeSet::first)
            {
                let oldest = *oldest;
                self.unbind(&mut order, oldest, changed);
            }
        }
        while let Some((index, key)) = order.all.first_key_value() {
            let index = *index;
            let old = self.idempotency.get(key).map_or(0, |bound| bound.time_ms);
            if old.saturating_add(IDEMPOTENCY_MS) > entry.time_ms {
                break;
            }
            self.unbind(&mut order, index, changed);
        }
    }

    fn unbind(&self, order: &mut Order, index: u64, changed: &mut Vec<Slot>) {
        let Some(key) = order.all.get(&index).copied() else { return };
        if let Some((_, bound)) = self.idempotency.remove(&key) {
            order.remove(&bound);
        }
        order.all.remove(&index);
        changed.push(Slot::new(Kind::Idempotency, key, 0));
    }

    /// The value of a slot as the restart image holds it; `None` when there is none any more.
    pub(crate) fn value(&self, slot: &Slot) -> Option<Vec<u8>> {
        match slot.kind {
            Kind::Holder => self.holders.get(&slot.key).map(|holder| holder.encode()),
            Kind::License => {
                let cell = self.licenses.get(&slot.key)?.value().clone();
                Some(self.encode_license(&cell))
            }
            Kind::Grant => self.grants.get(&self.grant_id(&slot.key)).map(|grant| grant.encode()),
            Kind::Document => {
                let kind = u8::try_from(slot.sub).ok()?;
                self.of_kind(kind)?.get(&slot.key).map(|document| document.encode())
            }
            Kind::Counter => {
                self.counters.get(&(slot.key, slot.sub)).map(|value| value.to_be_bytes().to_vec())
            }
            Kind::Idempotency => self.idempotency.get(&slot.key).map(|bound| bound.encode()),
            Kind::Oversight => self.oversight.get(&slot.key).map(|head| head.encode().to_vec()),
            Kind::Delayed => self.delayed.get(&slot.delayed_index()).map(|delayed| delayed.encode()),
            Kind::Epoch => Some(self.encode_epochs()),
            // Under the key of the present epoch, whichever the holder was born in: both are at hand until the table
            // of the present epoch, which holds this key too, is durable.
            Kind::HolderKey => {
                let (epoch, wrapped) = self.crypt.wrap_holder(&self.holder_key(&slot.key)?)?;
                Some([&epoch.to_be_bytes()[..], &wrapped].concat())
            }
        }
    }

    /// Puts a value of the restart image in place. Holders must come before the licenses that name them.
    pub(crate) fn load(&self, slot: &Slot, value: &[u8]) -> Option<()> {
        let mut rest = value;
        let r = &mut rest;
        match slot.kind {
            Kind::Holder => {
                let (key, epoch) = (take(r)?, u32::from_be_bytes(take(r)?));
                let erased = u8::from_be_bytes(take(r)?) != 0;
                let ended_ms = u64::from_be_bytes(take(r)?);
                let head = Head::take(r)?;
                self.adopt(slot.key, key, epoch, erased);
                let mut cell = self.holders.get_mut(&slot.key)?;
                (cell.ended_ms, cell.head) = (ended_ms, head);
            }
            Kind::License => {
                let mut cell = LicenseCell {
                    number_tag: u64::from_be_bytes(take(r)?),
                    body: Position(u64::from_be_bytes(take(r)?)),
                    version: u32::from_be_bytes(take(r)?),
                    valid_from_day: i32::from_be_bytes(take(r)?),
                    valid_until_day: i32::from_be_bytes(take(r)?),
                    certificate_version: u16::from_be_bytes(take(r)?),
                    state: u8::from_be_bytes(take(r)?),
                    flags: u8::from_be_bytes(take(r)?),
                    parties: Parties::One(0, 0),
                };
                let issuer = take(r)?;
                let (labels, odd) = rest.as_chunks::<16>();
                let indexes = self.indexes_of(labels);
                if !odd.is_empty() || indexes.len() != labels.len() {
                    return None;
                }
                cell.parties = Parties::new(self.issuer_index(&issuer), indexes);
                self.put_license(slot.key, cell);
                return Some(());
            }
            Kind::Grant => {
                let grant = Grant {
                    key: slot.key,
                    version: u32::from_be_bytes(take(r)?),
                    state: u8::from_be_bytes(take(r)?),
                    holder: take(r)?,
                    grantee: take(r)?,
                    target: take(r)?,
                    target_is_type: u8::from_be_bytes(take(r)?) != 0,
                    modes: u8::from_be_bytes(take(r)?),
                    fields: u64::from_be_bytes(take(r)?),
                    item_tag: u64::from_be_bytes(take(r)?),
                    until_ms: u64::from_be_bytes(take(r)?),
                    max_uses: u32::from_be_bytes(take(r)?),
                    portal: take(r)?,
                };
                self.put_grant(grant);
            }
            Kind::Document => {
                let version = u32::from_be_bytes(take(r)?);
                let kind = u8::try_from(slot.sub).ok()?;
                self.of_kind(kind)?.insert(slot.key, Document { version, value: rest.into() });
                return Some(());
            }
            Kind::Counter => {
                self.counters.insert((slot.key, slot.sub), u32::from_be_bytes(take(r)?));
            }
            Kind::Idempotency => {
                let bound = Bound {
                    request: take(r)?,
                    index: u64::from_be_bytes(take(r)?),
                    time_ms: u64::from_be_bytes(take(r)?),
                    organisation: take(r)?,
                    answer: Position(u64::from_be_bytes(take(r)?)),
                    frame: Position(u64::from_be_bytes(take(r)?)),
                };
                self.order.lock().unwrap_or_else(PoisonError::into_inner).insert(slot.key, &bound);
                self.idempotency.insert(slot.key, bound);
            }
            Kind::Oversight => {
                self.oversight.insert(slot.key, Head::take(r)?);
            }
            Kind::Delayed => {
                let release_ms = u64::from_be_bytes(take(r)?);
                let (holders, odd) = rest.as_chunks();
                let index = slot.delayed_index();
                self.delayed.insert(index, Delayed { index, release_ms, holders: holders.to_vec() });
                return odd.is_empty().then_some(());
            }
            Kind::Epoch => {
                let epoch = u32::from_be_bytes(take(r)?);
                self.epoch.store(epoch, Ordering::Release);
                self.crypt.begin_epoch(epoch);
                self.destroyed.store(u32::from_be_bytes(take(r)?), Ordering::Release);
                self.epoch_since_ms.store(u64::from_be_bytes(take(r)?), Ordering::Release);
            }
            Kind::HolderKey => {
                // A key of an earlier epoch opens no more; the table of the present one has the key.
                let epoch = u32::from_be_bytes(take(r)?);
                self.give_key(&slot.key, || self.crypt.unwrap_holder(&slot.key, epoch, r));
                return Some(());
            }
        }
        rest.is_empty().then_some(())
    }

    /// Where replay continues after loading the restart image. The values may be later, the time must not be: an entry
    /// behind it drops the counters that end with its day only if it begins that day.
    pub(crate) fn loaded(&self, at: &Cursor) {
        self.begun.store(at.frontier.size(), Ordering::Release);
        self.applied.store(at.frontier.size(), Ordering::Release);
        self.time_ms.store(at.time_ms, Ordering::Release);
        self.today.store(cst_day(at.time_ms), Ordering::Relaxed);
    }

    /// The digest of the whole state, the same for the same journal however the state came about. See [`Digest`].
    pub fn digest(&self) -> Hash {
        let mut digest = Digest::default();
        for holder in &self.holders {
            digest.add(&Slot::new(Kind::Holder, *holder.key(), 0).encode(), &holder.encode());
        }
        for license in &self.licenses {
            let value = self.encode_license(license.value());
            digest.add(&Slot::new(Kind::License, *license.key(), 0).encode(), &value);
        }
        for grant in &self.grants {
            digest.add(&Slot::new(Kind::Grant, grant.key, 0).encode(), &grant.encode());
        }
        for kind in DocumentKind::ALL.map(DocumentKind::number) {
            for document in self.of_kind(kind).into_iter().flatten() {
                let slot = Slot::new(Kind::Document, *document.key(), kind.into());
                digest.add(&slot.encode(), &document.encode());
            }
        }
        for counter in &self.counters {
            let (key, day) = *counter.key();
            digest.add(&Slot::new(Kind::Counter, key, day).encode(), &counter.value().to_be_bytes());
        }
        for bound in &self.idempotency {
            digest.add(&Slot::new(Kind::Idempotency, *bound.key(), 0).encode(), &bound.encode());
        }
        for head in &self.oversight {
            digest.add(&Slot::new(Kind::Oversight, *head.key(), 0).encode(), &head.encode());
        }
        for delayed in &self.delayed {
            digest.add(&Slot::of_delayed(delayed.index).encode(), &delayed.encode());
        }
        if self.epoch_since_ms() != 0 {
            digest.add(&EPOCH_SLOT.encode(), &self.encode_epochs());
        }
        digest.bytes()
    }

    fn encode_epochs(&self) -> Vec<u8> {
        [
            &self.epoch().to_be_bytes()[..],
            &self.epoch_destroyed().to_be_bytes(),
            &self.epoch_since_ms().to_be_bytes(),
        ]
        .concat()
    }

    /// Visits the slots of everything that [`State::digest`] sums up, and of the keys that no table holds yet. Entries are
    /// applied meanwhile: what they change may be missing, but a license whose value is read when it is visited comes with
    /// all holders that the value names. Nothing is locked while `visit` runs.
    pub(crate) fn walk<E>(&self, visit: &mut dyn FnMut(&Slot) -> Result<(), E>) -> Result<(), E> {
        let before = self.walk_holders(0, visit)?;
        keys(&self.licenses).into_iter().try_for_each(|key| visit(&Slot::new(Kind::License, key, 0)))?;
        // Holders come into the state before the licenses that name them.
        self.walk_holders(before, visit)?;
        let grants = gathered(&self.grants, |_, grant| grant.key);
        grants.into_iter().try_for_each(|key| visit(&Slot::new(Kind::Grant, key, 0)))?;
        for kind in DocumentKind::ALL.map(DocumentKind::number) {
            let documents = self.of_kind(kind).map(keys).unwrap_or_default().into_iter();
            documents
                .map(|key| Slot::new(Kind::Document, key, kind.into()))
                .try_for_each(|slot| visit(&slot))?;
        }
        let counters = keys(&self.counters).into_iter();
        counters.map(|(key, day)| Slot::new(Kind::Counter, key, day)).try_for_each(|slot| visit(&slot))?;
        keys(&self.idempotency)
            .into_iter()
            .try_for_each(|key| visit(&Slot::new(Kind::Idempotency, key, 0)))?;
        keys(&self.oversight).into_iter().try_for_each(|key| visit(&Slot::new(Kind::Oversight, key, 0)))?;
        keys(&self.delayed).into_iter().try_for_each(|index| visit(&Slot::of_delayed(index)))?;
        if self.epoch_since_ms() != 0 { visit(&EPOCH_SLOT) } else { Ok(()) }
    }

    /// Visits the holders from the `from`-th on, and their keys that no table holds yet. How many holders there are.
    fn walk_holders<E>(
        &self,
        mut from: usize,
        visit: &mut dyn FnMut(&Slot) -> Result<(), E>,
    ) -> Result<usize, E> {
        const AT_ONCE: usize = 1024;
        loop {
            let labels = self.labels_from(from, AT_ONCE);
            if labels.is_empty() {
                return Ok(from);
            }
            from += labels.len();
            // In this order: an epoch that begins in between is not taken for one whose table is durable.
            let (epoch, destroyed) = (self.epoch(), self.epoch_destroyed());
            let tabled = if destroyed + 1 < epoch { epoch - 1 } else { epoch };
            for label in labels {
                visit(&Slot::new(Kind::Holder, label, 0))?;
                let untabled =
                    self.holders.get(&label).is_some_and(|holder| holder.epoch >= tabled && !holder.erased);
                if untabled {
                    visit(&Slot::new(Kind::HolderKey, label, 0))?;
                }
            }
        }
    }

    /// Whether a value was loaded for a slot; also that of a key which is not to be loaded any more.
    pub(crate) fn holds(&self, slot: &Slot) -> bool {
        match slot.kind {
            Kind::Holder => self.holders.contains_key(&slot.key),
            Kind::License => self.licenses.contains_key(&slot.key),
            Kind::Grant => self.grants.contains_key(&self.grant_id(&slot.key)),
            Kind::Document => {
                let of_kind = u8::try_from(slot.sub).ok().and_then(|kind| self.of_kind(kind));
                of_kind.is_some_and(|documents| documents.contains_key(&slot.key))
            }
            Kind::Counter => self.counters.contains_key(&(slot.key, slot.sub)),
            Kind::Idempotency => self.idempotency.contains_key(&slot.key),
            Kind::Oversight => self.oversight.contains_key(&slot.key),
            Kind::Delayed => self.delayed.contains_key(&slot.delayed_index()),
            Kind::Epoch => self.epoch_since_ms() != 0,
            Kind::HolderKey => self.holders.get(&slot.key).is_none_or(|holder| holder.secret.is_some()),
        }
    }

    fn encode_license(&self, cell: &LicenseCell) -> Vec<u8> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        // Each cell's index is that of an issuer.
        let issuer = issuers.organisations.get(cell.parties.issuer() as usize).copied().unwrap_or_default();
        drop(issuers);
        [
            &cell.number_tag.to_be_bytes()[..],
            &cell.body.0.to_be_bytes(),
            &cell.version.to_be_bytes(),
            &cell.valid_from_day.to_be_bytes(),
            &cell.valid_until_day.to_be_bytes(),
            &cell.certificate_version.to_be_bytes(),
            &[cell.state, cell.flags],
            &issuer,
            self.labels_of(&cell.parties).as_flattened(),
        ]
        .concat()
    }
}

impl HolderCell {
    fn encode(&self) -> Vec<u8> {
        [
            &self.key[..],
            &self.epoch.to_be_bytes(),
            &[u8::from(self.erased)],
            &self.ended_ms.to_be_bytes(),
            &self.head.encode(),
        ]
        .concat()
    }
}

impl Delayed {
    fn encode(&self) -> Vec<u8> {
        [&self.release_ms.to_be_bytes()[..], self.holders.as_flattened()].concat()
    }
}

impl Grant {
    fn encode(&self) -> Vec<u8> {
        [
            &self.version.to_be_bytes()[..],
            &[self.state],
            &self.holder,
            &self.grantee,
            &self.target,
            &[u8::from(self.target_is_type), self.modes],
            &self.fields.to_be_bytes(),
            &self.item_tag.to_be_bytes(),
            &self.until_ms.to_be_bytes(),
            &self.max_uses.to_be_bytes(),
            &self.portal,
        ]
        .concat()
    }
}

impl Document {
    fn encode(&self) -> Vec<u8> {
        [&self.version.to_be_bytes()[..], &self.value].concat()
    }
}

impl Bound {
    fn encode(&self) -> Vec<u8> {
        [
            &self.request[..],
            &self.index.to_be_bytes(),
            &self.time_ms.to_be_bytes(),
            &self.organisation,
            &self.answer.0.to_be_bytes(),
            &self.frame.0.to_be_bytes(),
        ]
        .concat()
    }
}

/// A digest of a set of pairs that does not depend on their order and can be kept up to date pair by pair: the sum
/// of SHA-256(key ‖ value), as four wrapping 64-bit lanes. It guards against damage, not against an adversary,
/// who would have to change the journal. It leaves out the holders' keys: how they are wrapped changes, and what the
/// journal says does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(Term);

/// What one pair adds to a [`Digest`].
pub(crate) type Term = [u64; 4];

impl Digest {
    pub(crate) fn add(&mut self, key: &[u8; Slot::BYTES], value: &[u8]) {
        self.replace(None, Some(Self::term(key, value)));
    }

    /// Takes all that another one sums up out.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.replace(Some(other.0), None);
    }

    /// Takes the term of an old pair out and the term of a new one in.
    pub(crate) fn replace(&mut self, old: Option<Term>, new: Option<Term>) {
        for (lane, term) in self.0.iter_mut().zip(old.into_iter().flatten()) {
            *lane = lane.wrapping_sub(term);
        }
        for (lane, term) in self.0.iter_mut().zip(new.into_iter().flatten()) {
            *lane = lane.wrapping_add(term);
        }
    }

    pub(crate) fn bytes(&self) -> Hash {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = lane.to_be_bytes();
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &Hash) -> Self {
        let mut lanes = [0; 4];
        for (lane, chunk) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *lane = u64::from_be_bytes(*chunk);
        }
        Self(lanes)
    }

    /// What a pair adds to the sum.
    pub(crate) fn term(key: &[u8; Slot::BYTES], value: &[u8]) -> Term {
        if key[0] == Kind::HolderKey as u8 {
            return Term::default();
        }
        Self::from_bytes(&verifier::sha256(&[key, value])).0
    }
}

/// Day in China Standard Time, days since 1970.
pub(crate) fn cst_day(time_ms: u64) -> u32 {
    u32::try_from(time_ms.saturating_add(CST_OFFSET_MS) / MS_PER_DAY).unwrap_or(u32::MAX)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
