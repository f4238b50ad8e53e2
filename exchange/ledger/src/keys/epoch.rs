//! Epochs: the key that wraps holders' keys, its file, and the change from one epoch to the next.
//!
//! A holder's key is born wrapped under the key of the epoch it is born in, in the journal. The file of the current
//! epoch holds that epoch's key and, wrapped under it, the keys of all living holders born before. So whoever has the
//! journal needs the present file, and what the present file leaves out is gone: the key of an erased holder, in the
//! journal and in every copy of it.
//!
//! A change of epoch goes through these steps; README.md says what a crash between two of them leaves:
//!
//! ```text
//! 1  the next key is made and durable in `epoch.next`
//! 2  the key event is committed: from its index on, new holders are wrapped under the next key
//! 3  `epoch` is replaced by the next key with the table of all living holders born before; the old file is wiped
//! 4  the old key is overwritten in memory, `epoch.next` is wiped
//! 5  the destruction is committed
//! ```
//!
//! The ledger that holds the journal's lock makes these changes, one at a time; nobody else writes the two files.

use crate::{
    commit::command::Refused,
    error::OpenError,
    journal::record::Record,
    keys::{
        crypt::{Crypt, WRAPPED_BYTES},
        secrets::{EpochFile, EpochFiles, FIRST_EPOCH},
    },
    names::{KeyName, Label},
    state::State,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{
    any::Any,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use zeroize::Zeroizing;

/// The same number as [`crate::journal::segment::FORMAT`].
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 1 + 32 + 4 + 32 + 4;
/// label ‖ class ‖ year ‖ wrapped key.
const ROW_BYTES: usize = size_of::<Label>() + 1 + 2 + WRAPPED_BYTES;
/// Labels read at once while the table is made, so that nobody waits long for their lock.
const LABELS_AT_ONCE: usize = 1024;

/// Epoch keys that live as long as the process: for tools and measurements whose data nobody keeps.
pub struct EpochsInMemory(Mutex<[Option<Zeroizing<Vec<u8>>>; 2]>);

impl EpochsInMemory {
    /// The first epoch of a log, with this key.
    pub fn new(origin: &str, key: [u8; 32]) -> Self {
        let mut current = EpochKey::new(origin, FIRST_EPOCH);
        current.key = Zeroizing::new(key);
        Self(Mutex::new([Some(current.encode(Zeroizing::default())), None]))
    }

    fn with<T>(&self, file: EpochFile, work: impl FnOnce(&mut Option<Zeroizing<Vec<u8>>>) -> T) -> T {
        let [current, next] = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(match file {
            EpochFile::Current => current,
            EpochFile::Next => next,
        })
    }
}

impl EpochFiles for EpochsInMemory {
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.with(file, |content| content.clone()))
    }

    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()> {
        self.with(file, |old| *old = Some(Zeroizing::new(content.to_vec())));
        Ok(())
    }

    fn remove(&self, file: EpochFile) -> io::Result<()> {
        self.with(file, |content| *content = None);
        Ok(())
    }

    fn tidy(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The content of the file of a log's first epoch, with a fresh key. Made once, with the log: a lost file cannot be
/// replaced by a new one.
pub fn first_epoch(origin: &str) -> Zeroizing<Vec<u8>> {
    EpochKey::new(origin, FIRST_EPOCH).encode(Zeroizing::default())
}

/// An epoch's key.
pub(crate) struct EpochKey {
    pub(crate) log: [u8; 32],
    pub(crate) epoch: u32,
    pub(crate) key: Zeroizing<[u8; 32]>,
}

impl EpochKey {
    /// A fresh key.
    pub(crate) fn new(origin: &str, epoch: u32) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(key.as_mut_slice())
            .expect("getrandom does not fail once the kernel's pool is ready");
        Self { log: verifier::sha256(&[origin.as_bytes()]), epoch, key }
    }

    /// The file's content (section 7 of the formats) with the rows of the table.
    fn encode(&self, rows: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + rows.len()));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.log);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(self.key.as_slice());
        bytes.extend_from_slice(&((rows.len() / ROW_BYTES) as u32).to_be_bytes());
        bytes.extend_from_slice(&rows);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[[u8; ROW_BYTES]])> {
        let (head, rows) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let (version, rest) = head.split_first()?;
        let (log, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (key, count) = rest.split_first_chunk()?;
        let (rows, odd) = rows.as_chunks::<ROW_BYTES>();
        let count = u32::from_be_bytes(count.try_into().ok()?) as usize;
        let key = Self { log: *log, epoch: u32::from_be_bytes(*epoch), key: Zeroizing::new(*key) };
        (*version == VERSION && odd.is_empty() && rows.len() == count && key.epoch >= FIRST_EPOCH)
            .then_some((key, rows))
    }
}

/// The content of the files at start.
pub(crate) struct Loaded {
    current: EpochKey,
    next: Option<EpochKey>,
    /// The whole file of the current epoch, for its table.
    content: Zeroizing<Vec<u8>>,
}

impl Loaded {
    /// Reads both files; changes nothing.
    pub(crate) fn read(files: &dyn EpochFiles, origin: &str) -> Result<Self, OpenError> {
        let read = |file| files.load(file).map_err(OpenError::io("reading the epoch's key file"));
        let content =
            read(EpochFile::Current)?.ok_or(OpenError::Keys("the epoch's key file in keys is missing"))?;
        let parse = |bytes: &[u8]| {
            if let Some(found) = bytes.first().filter(|version| **version != VERSION) {
                return Err(OpenError::Format { found: (*found).into(), serves: VERSION.into() });
            }
            let (key, _) = EpochKey::decode(bytes)
                .ok_or(OpenError::Keys("the epoch's key file is of another format"))?;
            if key.log != verifier::sha256(&[origin.as_bytes()]) {
                return Err(OpenError::Keys("the epoch's key file is of another log"));
            }
            Ok(key)
        };
        let current = parse(&content)?;
        let next = read(EpochFile::Next)?.as_ref().map(|content| parse(content)).transpose()?;
        Ok(Self { current, next, content })
    }

    /// Gives replay every key that a holder may be wrapped under.
    pub(crate) fn install(&self, crypt: &Crypt) {
        for key in [Some(&self.current), self.next.as_ref()].into_iter().flatten() {
            crypt.install_epoch(key.epoch, &key.key);
        }
    }

    /// Gives the holders of earlier epochs their keys, once the journal is replayed.
    ///
    /// # Errors
    /// The files and the journal do not belong together, or a living holder is left without a key.
    pub(crate) fn complete(&self, crypt: &Crypt, state: &State) -> Result<(), OpenError> {
        let journal = state.epoch();
        let half_done = self.current.epoch + 1 == journal && self.next_is(journal);
        if self.current.epoch != journal && !half_done {
            return Err(OpenError::Keys(if self.current.epoch < journal {
                "the epoch's key file is older than the journal: restore the present one"
            } else {
                "the epoch's key file is newer than the journal, which has lost its end"
            }));
        }
        let rows = EpochKey::decode(&self.content).map(|(_, rows)| rows).unwrap_or_default();
        let open = crypt.unwrapper(self.current.epoch);
        for row in rows {
            let (name, wrapped) = read_row(row);
            state.give_key(&name, || open(&name, wrapped));
        }
        if state.keys_are_complete() {
            Ok(())
        } else {
            Err(OpenError::Keys("the epoch's key file lacks the key of a living holder"))
        }
    }

    fn next_is(&self, epoch: u32) -> bool {
        self.next.as_ref().is_some_and(|next| next.epoch == epoch)
    }

    /// Removes what no step of a change needs any more, or not yet: a next key that no key event has taken up, and one
    /// that has become the current. The epoch of the durable file.
    pub(crate) fn settle(
        self,
        files: &dyn EpochFiles,
        crypt: &Crypt,
        state: &State,
    ) -> Result<u32, OpenError> {
        let io = || OpenError::io("clearing away an epoch's key");
        files.tidy().map_err(io())?;
        let half_done = self.current.epoch < state.epoch();
        if let Some(next) = self.next.as_ref().filter(|_| !half_done) {
            files.remove(EpochFile::Next).map_err(io())?;
            if next.epoch != self.current.epoch {
                crypt.destroy_epoch(next.epoch);
            }
        }
        Ok(self.current.epoch)
    }
}

/// Why an epoch was not changed to its end. The next call of [`crate::Ledger::rotate`], or the next start, goes on where
/// this one stopped.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// A key file cannot be written.
    #[error("the epoch's key file cannot be written: {0}")]
    Files(#[from] io::Error),
    /// The journal does not take the key event.
    #[error("the key event was not committed: {0}")]
    Refused(#[from] Refused),
}

/// Changes epochs, one change at a time.
pub(crate) struct Rotation {
    files: Arc<dyn EpochFiles>,
    origin: String,
    /// Epoch of the durable file of the current key.
    durable: Mutex<u32>,
    /// The journal's lock, while the ledger is open: without it the files are another process's to write.
    lock: Weak<dyn Any + Send + Sync>,
}

impl Rotation {
    pub(crate) fn new(
        files: Arc<dyn EpochFiles>,
        origin: &str,
        durable: u32,
        lock: Weak<dyn Any + Send + Sync>,
    ) -> Self {
        Self { files, origin: origin.to_owned(), durable: Mutex::new(durable), lock }
    }

    /// Finishes the change under way, or makes a whole one. `commit` makes an entry of a record durable.
    pub(crate) fn run(
        &self,
        crypt: &Crypt,
        state: &State,
        commit: impl Fn(Record) -> Result<(), Refused>,
    ) -> Result<u32, RotateError> {
        let _lock = self.lock.upgrade().ok_or(Refused::Stopped)?;
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_rotating() {
            self.begin(crypt, state, &commit)?;
        }
        let epoch = state.epoch();
        if *durable != epoch {
            let key = EpochKey {
                log: verifier::sha256(&[self.origin.as_bytes()]),
                epoch,
                key: crypt
                    .epoch_key(epoch)
                    .ok_or_else(|| io::Error::other("the next epoch's key is gone"))?,
            };
            let content = key.encode(rows(crypt, state, epoch));
            #[cfg(debug_assertions)]
            let put_off = crate::failpoint::leaves_epoch_unreplaced();
            #[cfg(not(debug_assertions))]
            let put_off = false;
            if !put_off {
                self.files.replace(EpochFile::Current, &content)?;
            }
            *durable = epoch;
        }
        #[cfg(debug_assertions)]
        crate::failpoint::after_step("rotation-replaced");
        crypt.destroy_epoch(epoch - 1);
        self.files.remove(EpochFile::Next)?;
        #[cfg(debug_assertions)]
        crate::failpoint::after_step("rotation-wiped");
        commit(Record { epoch_destroyed: epoch - 1, ..Record::default() })?;
        Ok(epoch)
    }

    fn begin(
        &self,
        crypt: &Crypt,
        state: &State,
        commit: impl Fn(Record) -> Result<(), Refused>,
    ) -> Result<(), RotateError> {
        let next = EpochKey::new(&self.origin, state.epoch() + 1);
        self.files.replace(EpochFile::Next, &next.encode(Zeroizing::default()))?;
        #[cfg(debug_assertions)]
        crate::failpoint::after_step("rotation-prepared");
        crypt.install_epoch(next.epoch, &next.key);
        match commit(Record { epoch_begun: next.epoch, ..Record::default() }) {
            Ok(()) => {
                #[cfg(debug_assertions)]
                crate::failpoint::after_step("rotation-begun");
                Ok(())
            }
            // The disk may hold the key event; the next start decides, and needs the key if it does.
            Err(Refused::Stopped) => Err(Refused::Stopped.into()),
            Err(refused) => {
                crypt.destroy_epoch(next.epoch);
                self.files.remove(EpochFile::Next)?;
                Err(refused.into())
            }
        }
    }
}

/// A row of the table.
fn row(name: &KeyName, wrapped: &[u8; WRAPPED_BYTES]) -> [u8; ROW_BYTES] {
    let mut row = [0; ROW_BYTES];
    row[..16].copy_from_slice(&name.label);
    row[16] = name.class;
    row[17..19].copy_from_slice(&name.year.to_be_bytes());
    row[19..].copy_from_slice(wrapped);
    row
}

fn read_row(row: &[u8; ROW_BYTES]) -> (KeyName, &[u8]) {
    let (label, rest) = row.split_first_chunk().expect("a row has a label");
    let ([class, century, year], wrapped) = rest.split_first_chunk().expect("a row has a class and a year");
    (KeyName { label: *label, class: *class, year: u16::from_be_bytes([*century, *year]) }, wrapped)
}

/// The table: every key that a living holder has from before `epoch`, wrapped under its key.
fn rows(crypt: &Crypt, state: &State, epoch: u32) -> Zeroizing<Vec<u8>> {
    let wrap = crypt.wrapper(epoch);
    // Room at once: a buffer that grows leaves copies behind. Wrapped keys are no secret while the epoch's key is one.
    let mut rows = Zeroizing::new(Vec::with_capacity(state.key_count() * ROW_BYTES));
    let mut from = 0;
    loop {
        let labels = state.labels_from(from, LABELS_AT_ONCE);
        if labels.is_empty() {
            return rows;
        }
        from += labels.len();
        for label in labels {
            for (name, born) in state.key_names(&label) {
                if let Some(key) = state.part_key(&name).filter(|_| born < epoch)
                    && let Some(wrapped) = wrap(&key)
                {
                    rows.extend_from_slice(&row(&name, &wrapped));
                }
            }
        }
    }
}
