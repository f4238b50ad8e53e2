//! Keys and sealing: keyed hashes, day keys, state parts, subject parts, holder keys (sections 6 and 7).
//!
//! One for each ledger, shared by its threads; the change of epoch alone replaces a key. It is memory: the key files
//! belong to `secrets.rs` and `epoch.rs`.

use crate::{
    error::ReadError,
    journal::record::NewHolder,
    keys::secrets::{FIRST_EPOCH, LedgerKeys},
    names::{Key, KeyName, Label},
};
use dashmap::DashMap;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use std::cell::RefCell;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use zeroize::{Zeroize as _, Zeroizing};

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;
/// A key of 32 bytes under another key: nonce ‖ ciphertext ‖ tag.
pub(crate) const WRAPPED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;
/// Per holder in a part of form 2: label ‖ wrapped record key.
const SHARE_BYTES: usize = 16 + WRAPPED_BYTES;
/// Length, form, class, part number and year of a sealed subject part.
pub(crate) const PART_HEAD_BYTES: usize = 10;
/// Most holders of one part: their number is one byte.
const MAX_SHARES: usize = 255;
/// Day keys kept derived; ten years of days are fewer.
const MAX_DAY_KEYS: usize = 4096;
const MS_PER_DAY: u64 = 86_400_000;
const LEAF_KIND_ENTRY: u8 = 1;

/// The purpose that a holder's key is wrapped for.
const HOLDER_KEY: &[u8] = b"miaoxiang holder key v2";

/// The purpose of a sealed hosted row.
const ROW: &[u8] = b"miaoxiang row v1";

const FORM_DAY: u8 = 0;
const FORM_HOLDER: u8 = 1;
const FORM_SHARED: u8 = 2;

/// Keyed hashes: HMAC-SHA256 under the index key, cut short (section 7). Without the key nobody can confirm a
/// guess of what a hash stands for.
pub struct KeyedHash(hmac::Key);

impl KeyedHash {
    /// Keyed hashes under an index key.
    pub fn new(index_key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, index_key))
    }

    /// 16 bytes of the HMAC of `kind` ‖ 0x00 ‖ the parts joined with 0x00.
    pub fn key(&self, kind: &str, parts: &[&[u8]]) -> Key {
        *self.digest(kind, parts).first_chunk().expect("an HMAC-SHA256 has 32 bytes")
    }

    /// The first 8 bytes of the same HMAC, as a big-endian integer.
    pub fn tag(&self, kind: &str, parts: &[&[u8]]) -> u64 {
        u64::from_be_bytes(*self.digest(kind, parts).first_chunk().expect("an HMAC-SHA256 has 32 bytes"))
    }

    /// The tag of the key in the header of each segment: it tells another key, and nothing of the key.
    pub(crate) fn check(&self, origin: &str) -> u64 {
        self.tag("journal", &[origin.as_bytes()])
    }

    fn digest(&self, kind: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(kind.as_bytes());
        for part in parts {
            context.update(&[0]);
            context.update(part);
        }
        if parts.is_empty() {
            context.update(&[0]);
        }
        context.sign().as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
    }
}

/// Bytes taken from the kernel's generator at once: each nonce would cost a system call of its own.
const POOL_BYTES: usize = 1024;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], left: 0 }) };
}

/// Random bytes of this thread. Every byte is given out once and then overwritten. The process never goes on in a fork,
/// which would have the same ones.
struct Pool {
    bytes: [u8; POOL_BYTES],
    /// Those at the front that were not given out.
    left: usize,
}

impl Pool {
    fn fill(&mut self, random: &SystemRandom, out: &mut [u8]) {
        let kernel = |bytes: &mut [u8]| {
            random.fill(bytes).expect("getrandom does not fail once the kernel's pool is ready");
        };
        if out.len() > POOL_BYTES / 4 {
            return kernel(out);
        }
        if self.left < out.len() {
            kernel(&mut self.bytes);
            self.left = POOL_BYTES;
        }
        let taken = &mut self.bytes[self.left - out.len()..self.left];
        out.copy_from_slice(taken);
        taken.zeroize();
        self.left -= out.len();
    }
}

/// A holder's own key for one retention class and year, unwrapped. Overwritten when dropped.
#[derive(Clone)]
pub struct HolderKey {
    /// Whose key it is.
    pub label: Label,
    /// Number of the retention class.
    pub class: u8,
    /// Year in China Standard Time of the entries whose parts it seals.
    pub year: u16,
    key: [u8; 32],
}

impl HolderKey {
    pub(crate) fn new(name: KeyName, key: &[u8; 32]) -> Self {
        Self { label: name.label, class: name.class, year: name.year, key: *key }
    }

    /// Which key it is.
    pub fn name(&self) -> KeyName {
        KeyName { label: self.label, class: self.class, year: self.year }
    }

    /// Whether it is the same key, not only one of the same name.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.name() == other.name() && self.key == other.key
    }

    /// The key alone, in a box of its own.
    pub(crate) fn secret(&self) -> Box<Zeroizing<[u8; 32]>> {
        Box::new(Zeroizing::new(self.key))
    }
}

impl Drop for HolderKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// A holder that the journal does not know yet: nothing of it is stored until a record names it in `new_holders`.
pub struct PreparedHolder {
    /// Keyed hash of type code and number.
    pub key: Key,
    /// The new random label.
    pub label: Label,
    /// The new random key, for sealing at once.
    pub holder_key: HolderKey,
    /// The key under the epoch key, as the record holds it: nonce (12), ciphertext (32), tag (16).
    pub wrapped: [u8; WRAPPED_BYTES],
    /// The epoch of that key.
    pub epoch: u32,
}

impl PreparedHolder {
    /// The holder as a record enters it.
    pub fn entered(&self) -> NewHolder {
        NewHolder {
            key: self.key,
            label: self.label,
            class: self.holder_key.class,
            year: self.holder_key.year,
            epoch: self.epoch,
            wrapped: self.wrapped,
        }
    }
}

/// The keys that holders' keys are wrapped under: one, and two while the epoch changes.
#[derive(Default)]
struct Epochs {
    /// The one that new holders are wrapped under: the journal's.
    current: u32,
    /// Overwritten when removed.
    keys: Vec<(u32, Zeroizing<[u8; 32]>)>,
}

impl Epochs {
    fn key(&self, epoch: u32) -> Option<&[u8; 32]> {
        self.keys.iter().find(|(number, _)| *number == epoch).map(|(_, key)| &**key)
    }
}

pub(crate) struct Crypt {
    origin: String,
    random: SystemRandom,
    journal: hkdf::Prk,
    keyed: KeyedHash,
    epochs: RwLock<Epochs>,
    days: DashMap<u32, Arc<LessSafeKey>>,
}

impl Crypt {
    pub(crate) fn new(origin: &str, keys: &LedgerKeys) -> Self {
        Self {
            origin: origin.to_owned(),
            random: SystemRandom::new(),
            journal: hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.journal),
            keyed: KeyedHash::new(&keys.index),
            epochs: RwLock::new(Epochs { current: FIRST_EPOCH, keys: Vec::new() }),
            days: DashMap::new(),
        }
    }

    /// The id of the grant with a key. Unsealed bytes on the disk have the key alone, which is no id.
    pub(crate) fn grant_id(&self, key: &Key) -> Key {
        self.keyed.key("grant", &[key])
    }

    pub(crate) fn fill_random(&self, bytes: &mut [u8]) {
        POOL.with_borrow_mut(|pool| pool.fill(&self.random, bytes));
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill_random(&mut bytes);
        bytes
    }

    fn day_key(&self, day: u32) -> Arc<LessSafeKey> {
        if let Some(key) = self.days.get(&day) {
            return Arc::clone(&key);
        }
        let info = [b"miaoxiang day key v1\0", self.origin.as_bytes(), b"\0", &day.to_be_bytes()].concat();
        let parts = [info.as_slice()];
        let okm = self.journal.expand(&parts, &AES_256_GCM).expect("32 bytes are less than HKDF's limit");
        let key = Arc::new(LessSafeKey::new(UnboundKey::from(okm)));
        if self.days.len() >= MAX_DAY_KEYS {
            self.days.clear();
        }
        self.days.insert(day, Arc::clone(&key));
        key
    }

    /// Seals the state part in place. `buffer[start..]` is 12 bytes of room for the nonce and the plaintext; the
    /// tag is appended.
    pub(crate) fn seal_state(&self, buffer: &mut Vec<u8>, start: usize, day: u32, frame_number: u64) {
        let nonce: [u8; NONCE_BYTES] = self.random();
        buffer[start..start + NONCE_BYTES].copy_from_slice(&nonce);
        let aad = self.aad(b"miaoxiang state part v1", &frame_number.to_be_bytes());
        let tag = self
            .day_key(day)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut buffer[start + NONCE_BYTES..],
            )
            .expect("a frame is far shorter than the limit of AES-GCM");
        buffer.extend_from_slice(tag.as_ref());
    }

    pub(crate) fn open_state(
        &self,
        sealed: &[u8],
        day: u32,
        frame_number: u64,
    ) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let aad = self.aad(b"miaoxiang state part v1", &frame_number.to_be_bytes());
        open(&self.day_key(day), &aad, sealed).ok_or(ReadError::Sealed("state part"))
    }

    /// A holder whose first key is for what is written in a class at this moment, ms since 1970.
    pub(crate) fn new_holder(&self, key: Key, class: u8, now_ms: u64) -> PreparedHolder {
        let label: Label = self.random();
        let (holder_key, epoch, wrapped) = self.new_key(KeyName::at(label, class, now_ms));
        PreparedHolder { key, label, holder_key, wrapped, epoch }
    }

    /// A random key of this name, wrapped under the key of the epoch beside it.
    pub(crate) fn new_key(&self, name: KeyName) -> (HolderKey, u32, [u8; WRAPPED_BYTES]) {
        let holder_key = HolderKey::new(name, &self.random());
        let (epoch, wrapped) =
            self.wrap_holder(&holder_key).expect("a serving ledger has the key of the epoch it is in");
        (holder_key, epoch, wrapped)
    }

    /// A holder's key wrapped under the current epoch's, with that epoch; `None` when its key is not at hand.
    pub(crate) fn wrap_holder(&self, holder: &HolderKey) -> Option<(u32, [u8; WRAPPED_BYTES])> {
        let (epoch, key) = {
            let epochs = self.epochs();
            (epochs.current, aead_key(epochs.key(epochs.current)?))
        };
        Some((epoch, self.wrap(&key, holder)))
    }

    fn wrap(&self, key: &LessSafeKey, holder: &HolderKey) -> [u8; WRAPPED_BYTES] {
        let aad = self.aad(HOLDER_KEY, &holder.name().bytes());
        let wrapped = self.seal(key, &aad, &holder.key);
        wrapped.try_into().expect("a wrapped key has one length")
    }

    /// A holder's key out of its wrapping; `None` when its epoch's key is not at hand or does not open it.
    pub(crate) fn unwrap_holder(&self, name: &KeyName, epoch: u32, wrapped: &[u8]) -> Option<HolderKey> {
        self.unwrapper(epoch)(name, wrapped)
    }

    /// Unwraps many holders' keys of one epoch.
    pub(crate) fn unwrapper(&self, epoch: u32) -> impl Fn(&KeyName, &[u8]) -> Option<HolderKey> {
        let epoch_key = self.epochs().key(epoch).map(aead_key);
        move |name, wrapped| {
            let aad = self.aad(HOLDER_KEY, &name.bytes());
            let key = open(epoch_key.as_ref()?, &aad, wrapped)?;
            Some(HolderKey::new(*name, key.as_slice().try_into().ok()?))
        }
    }

    /// Wraps many holders' keys under one epoch's; `None` when its key is not at hand.
    pub(crate) fn wrapper(&self, epoch: u32) -> impl Fn(&HolderKey) -> Option<[u8; WRAPPED_BYTES]> {
        let epoch_key = self.epochs().key(epoch).map(aead_key);
        move |holder| Some(self.wrap(epoch_key.as_ref()?, holder))
    }

    /// Makes an epoch's key usable, beside the current one.
    pub(crate) fn install_epoch(&self, epoch: u32, key: &[u8; 32]) {
        let mut epochs = self.epochs_mut();
        epochs.keys.retain(|(number, _)| *number != epoch);
        epochs.keys.push((epoch, Zeroizing::new(*key)));
    }

    /// From now on new holders are wrapped under this epoch's key.
    pub(crate) fn begin_epoch(&self, epoch: u32) {
        self.epochs_mut().current = epoch;
    }

    /// Overwrites an epoch's key in memory. The copies that `ring` made for one use lived on the stack.
    pub(crate) fn destroy_epoch(&self, epoch: u32) {
        self.epochs_mut().keys.retain(|(number, _)| *number != epoch);
    }

    /// An epoch's key, to be written to its file.
    pub(crate) fn epoch_key(&self, epoch: u32) -> Option<Zeroizing<[u8; 32]>> {
        self.epochs().key(epoch).map(|key| Zeroizing::new(*key))
    }

    fn epochs(&self) -> RwLockReadGuard<'_, Epochs> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn epochs_mut(&self) -> RwLockWriteGuard<'_, Epochs> {
        self.epochs.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals a subject part: under the day's key without a holder, under the holder's key for one, under a fresh
    /// record key wrapped for each of several (at most 255). All keys are of one class and year.
    pub(crate) fn seal_subject(
        &self,
        part: u16,
        holders: &[HolderKey],
        now_ms: u64,
        plaintext: &[u8],
    ) -> Vec<u8> {
        let aad = self.aad(b"miaoxiang subject part v1", &entry_part(part));
        let several = &holders[..holders.len().min(MAX_SHARES)];
        let (form, head_bytes) = match several {
            [] => (FORM_DAY, 4),
            [_] => (FORM_HOLDER, 16),
            _ => (FORM_SHARED, 1 + several.len() * SHARE_BYTES),
        };
        let length = PART_HEAD_BYTES - 4 + head_bytes + NONCE_BYTES + plaintext.len() + TAG_BYTES;
        let mut sealed = Vec::with_capacity(4 + length);
        sealed.extend_from_slice(&(length as u32).to_be_bytes());
        let (class, year) = several.first().map_or((0, 0), |first| (first.class, first.year));
        sealed.extend_from_slice(&[form, class]);
        sealed.extend_from_slice(&part.to_be_bytes());
        sealed.extend_from_slice(&year.to_be_bytes());
        match several {
            [] => {
                let day = day_of(now_ms);
                sealed.extend_from_slice(&day.to_be_bytes());
                self.seal_behind(&self.day_key(day), &aad, plaintext, &mut sealed);
            }
            [one] => {
                sealed.extend_from_slice(&one.label);
                self.seal_behind(&aead_key(&one.key), &aad, plaintext, &mut sealed);
            }
            several => {
                let record_key = Zeroizing::new(self.random::<32>());
                sealed.push(several.len() as u8);
                for holder in several {
                    let aad = self.aad(b"miaoxiang record key v1", &holder.label);
                    sealed.extend_from_slice(&holder.label);
                    self.seal_behind(&aead_key(&holder.key), &aad, record_key.as_slice(), &mut sealed);
                }
                self.seal_behind(&aead_key(&record_key), &aad, plaintext, &mut sealed);
            }
        }
        sealed
    }

    /// Opens a whole sealed part, from its length on; `holder_key` gives the keys that still exist.
    pub(crate) fn open_subject(
        &self,
        part: &[u8],
        holder_key: impl Fn(&KeyName) -> Option<HolderKey>,
    ) -> Result<Vec<u8>, ReadError> {
        const MALFORMED: ReadError = ReadError::Malformed("subject part");
        let PartHead { form, class, number, year } = PartHead::read(part).ok_or(MALFORMED)?;
        let holder_key = |label: &Label| holder_key(&KeyName { label: *label, class, year });
        let aad = self.aad(b"miaoxiang subject part v1", &entry_part(number));
        let rest = &part[PART_HEAD_BYTES..];
        let opened = match form {
            FORM_DAY => {
                let (day, sealed) = rest.split_first_chunk().ok_or(MALFORMED)?;
                open(&self.day_key(u32::from_be_bytes(*day)), &aad, sealed)
            }
            FORM_HOLDER => {
                let (label, sealed) = rest.split_first_chunk().ok_or(MALFORMED)?;
                let holder = holder_key(label).ok_or(ReadError::KeyGone)?;
                open(&aead_key(&holder.key), &aad, sealed)
            }
            FORM_SHARED => {
                let (count, rest) = rest.split_first().ok_or(MALFORMED)?;
                let (shares, sealed) =
                    rest.split_at_checked(usize::from(*count) * SHARE_BYTES).ok_or(MALFORMED)?;
                let record_key = shares
                    .chunks_exact(SHARE_BYTES)
                    .find_map(|share| {
                        let (label, wrapped) = share.split_first_chunk()?;
                        let holder = holder_key(label)?;
                        let aad = self.aad(b"miaoxiang record key v1", label);
                        open(&aead_key(&holder.key), &aad, wrapped)
                    })
                    .ok_or(ReadError::KeyGone)?;
                let record_key: &[u8; 32] = record_key.as_slice().try_into().map_err(|_| MALFORMED)?;
                open(&aead_key(record_key), &aad, sealed)
            }
            _ => return Err(MALFORMED),
        };
        opened.map(|mut plain| std::mem::take(&mut *plain)).ok_or(ReadError::Sealed("subject part"))
    }

    /// Seals hosted rows of one segment, each behind what a buffer holds.
    pub(crate) fn row_sealer(
        &self,
        key: &HolderKey,
        segment: &Key,
    ) -> impl FnMut(&Key, &[u8], &mut Vec<u8>) + use<'_> {
        let (label, segment, key) = (key.label, *segment, aead_key(&key.key));
        move |row, plaintext, buffer| {
            let aad = self.aad(ROW, [label, segment, *row].as_flattened());
            self.seal_behind(&key, &aad, plaintext, buffer);
        }
    }

    /// Opens a hosted row.
    pub(crate) fn open_row(
        &self,
        key: &HolderKey,
        segment: &Key,
        row: &Key,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let aad = self.aad(ROW, [key.label, *segment, *row].as_flattened());
        open(&aead_key(&key.key), &aad, sealed).ok_or(ReadError::Sealed("row"))
    }

    fn aad(&self, purpose: &[u8], content: &[u8]) -> Vec<u8> {
        [purpose, b"\0", self.origin.as_bytes(), b"\0", content].concat()
    }

    /// nonce ‖ ciphertext ‖ tag, with a fresh random nonce.
    fn seal(&self, key: &LessSafeKey, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plaintext.len() + TAG_BYTES);
        self.seal_behind(key, aad, plaintext, &mut sealed);
        sealed
    }

    /// The same behind what a buffer holds.
    fn seal_behind(&self, key: &LessSafeKey, aad: &[u8], plaintext: &[u8], buffer: &mut Vec<u8>) {
        let nonce: [u8; NONCE_BYTES] = self.random();
        buffer.extend_from_slice(&nonce);
        let at = buffer.len();
        buffer.extend_from_slice(plaintext);
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut buffer[at..],
            )
            .expect("what is sealed is far shorter than the limit of AES-GCM");
        buffer.extend_from_slice(tag.as_ref());
    }
}

fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes"))
}

fn open(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = key.open_in_place(nonce, Aad::from(aad), &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

/// The head of a sealed part, behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartHead {
    form: u8,
    /// 0 in a part under a day's key, and so is the year.
    class: u8,
    pub(crate) number: u16,
    year: u16,
}

impl PartHead {
    /// Reads the head of a whole and exact sealed part; `None` when it is not one.
    pub(crate) fn read(part: &[u8]) -> Option<Self> {
        let (length, rest) = part.split_first_chunk::<4>()?;
        let ([form, class, high, low, century, year], _) = rest.split_first_chunk()?;
        let head = Self {
            form: *form,
            class: *class,
            number: u16::from_be_bytes([*high, *low]),
            year: u16::from_be_bytes([*century, *year]),
        };
        let exact = u32::from_be_bytes(*length) as usize == rest.len();
        let under_a_day = head.class == 0 && head.year == 0;
        (exact && under_a_day == (head.form == FORM_DAY)).then_some(head)
    }

    /// The year whose holders' keys the part is sealed under; `None` under a day's key.
    pub(crate) fn year(&self) -> Option<u16> {
        (self.form != FORM_DAY).then_some(self.year)
    }
}

/// Whether a sealed part opens with the key of this holder.
pub(crate) fn is_sealed_for(part: &[u8], label: &Label) -> bool {
    let Some(rest) = part.get(PART_HEAD_BYTES..) else { return false };
    match part[4] {
        FORM_HOLDER => rest.starts_with(label),
        FORM_SHARED => rest.split_first().is_some_and(|(count, shares)| {
            shares.chunks_exact(SHARE_BYTES).take((*count).into()).any(|share| share.starts_with(label))
        }),
        _ => false,
    }
}

/// Leaf kind and part number, as the additional data of a subject part ends.
fn entry_part(number: u16) -> [u8; 3] {
    let [high, low] = number.to_be_bytes();
    [LEAF_KIND_ENTRY, high, low]
}

/// Days since 1970 UTC: the name of a day key.
pub(crate) fn day_of(time_ms: u64) -> u32 {
    u32::try_from(time_ms / MS_PER_DAY).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn random_bytes_are_given_out_once_and_then_overwritten() {
        let random = SystemRandom::new();
        let mut pool = Pool { bytes: [0; POOL_BYTES], left: 0 };
        let mut given = HashSet::new();
        // No divisor of the pool, so that a rest is thrown away, and far more than it holds.
        for _ in 0..10 * POOL_BYTES / 20 {
            let mut out = [0; 20];
            pool.fill(&random, &mut out);
            assert!(given.insert(out));
            assert_eq!(pool.bytes[pool.left..], vec![0; POOL_BYTES - pool.left]);
        }
        // What is longer does not come from the pool and leaves it as it is.
        let before = (pool.bytes, pool.left);
        let mut long = [[0; 20]; POOL_BYTES / 20];
        pool.fill(&random, long.as_flattened_mut());
        assert_eq!((pool.bytes, pool.left), before);
        assert!(long.into_iter().all(|part| given.insert(part)));
        // Down to the last byte.
        while pool.left > 0 {
            pool.fill(&random, &mut [0]);
        }
        assert_eq!(pool.bytes, [0; POOL_BYTES]);
    }
}
