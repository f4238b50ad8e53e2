//! The store of the restart image: a narrow trait over an embedded key-value store. So configuration can change the
//! engine, and none is trusted. Nothing here is ever read to decide or acknowledged on; an engine that fails, panics or
//! lies costs a replay.
//!
//! The image's thread owns an open store; a start opens it before, first in a process of its own. A kill leaves whole
//! batches, a power cut perhaps none.

use crate::disk::open_files;
use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// An engine keeps several times this in memory; the image is read from end to end, at a start and for a snapshot.
const CACHE_BYTES: u64 = 16 << 20;
/// Open files of fjall, where the process may open many.
const FJALL_OPEN_FILES: u64 = 256;
/// The least that fjall allows; what is older than this in its own journal is written to its tables.
const FJALL_JOURNAL_BYTES: u64 = 64 << 20;
/// An engine's own threads may keep its files locked for a while after it was dropped in this process. No other process
/// opens them: that takes the journal's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_REST: Duration = Duration::from_millis(5);
const FJALL_KEYSPACE: &str = "image";

/// The engine that keeps the restart image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// sled 0.34.7. Its `flush` is not durable on Linux: a power cut may leave an older image or none.
    #[default]
    Sled,
    /// fjall 3.
    Fjall,
}

impl Engine {
    /// All engines.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Fjall];

    /// The engine's name, which is that of its folder too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
        }
    }

    /// Opens the engine's store in its own folder below `store`, which is made if it is missing.
    pub(crate) fn open(self, store: &Path) -> Result<Box<dyn Store>, StoreError> {
        let folder = store.join(self.name());
        fs::create_dir_all(&folder)?;
        let began = Instant::now();
        loop {
            let opened = guarded(|| {
                let store: Box<dyn Store> = match self {
                    Self::Sled => Box::new(Sled::open(&folder)?),
                    Self::Fjall => Box::new(Fjall::open(&folder)?),
                };
                Ok(store)
            });
            match opened {
                Err(error) if error.is_locked() && began.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_REST);
                }
                opened => return opened,
            }
        }
    }
}

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled says so.
    #[error("sled failed: {0}")]
    Sled(#[from] sled::Error),
    /// fjall says so.
    #[error("fjall failed: {0}")]
    Fjall(#[from] fjall::Error),
    /// The file system failed.
    #[error("the file system failed: {0}")]
    Io(#[from] io::Error),
    /// It can be read and is not what it should be.
    #[error("the image is {0}")]
    Doubtful(&'static str),
    /// The engine panicked.
    #[error("the store panicked")]
    Panicked,
    /// The probe in front of an open says no.
    #[error("the store did not open in its probe: {0}")]
    Probe(String),
}

impl StoreError {
    /// Another handle has the store open.
    fn is_locked(&self) -> bool {
        match self {
            // sled has no other sign of it.
            Self::Sled(sled::Error::Io(error)) => error.to_string().contains("could not acquire lock"),
            Self::Fjall(fjall::Error::Locked) => true,
            _ => false,
        }
    }
}

/// Changes that become visible together: the new value of each key, or that it is gone.
pub(crate) type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Takes a key and its value; an error ends the iteration.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// An ordered map from bytes to bytes on disk. One thread uses it at a time.
pub(crate) trait Store: Send {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Visits every pair, by ascending key.
    fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError>;
    /// Makes a batch visible, all of it or nothing, also to whoever opens the store after a crash of the process.
    fn apply(&mut self, batch: Batch) -> Result<(), StoreError>;
    /// Hands what was applied to the operating system, and to the disk as far as the engine is able to.
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// Runs store code so that a panic in it costs the image and not the process.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(StoreError::Panicked))
}

struct Sled(sled::Db);

impl Sled {
    fn open(folder: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::default().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        Ok(Self(config.open()?))
    }
}

impl Store for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key)?.map(|value| value.to_vec()))
    }

    fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for pair in self.0.iter() {
            let (key, value) = pair?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        Ok(self.0.apply_batch(changes)?)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush()?;
        Ok(())
    }
}

struct Fjall {
    database: fjall::Database,
    pairs: fjall::Keyspace,
}

impl Fjall {
    fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = fjall::Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(FJALL_JOURNAL_BYTES)
            .worker_threads(1)
            .max_cached_files(Some(open_files(FJALL_OPEN_FILES)))
            .open()?;
        let pairs = database.keyspace(FJALL_KEYSPACE, fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { database, pairs })
    }
}

impl Store for Fjall {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.pairs.get(key)?.map(|value| value.to_vec()))
    }

    fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for pair in self.pairs.iter() {
            let (key, value) = pair.into_inner()?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut changes = self.database.batch();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(&self.pairs, key, value),
                None => changes.remove(&self.pairs, key),
            }
        }
        Ok(changes.commit()?)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(self.database.persist(fjall::PersistMode::SyncAll)?)
    }
}

/// Removes what other engines left below `store`: an image that nobody keeps up to date only grows old.
pub(crate) fn remove_others(store: &Path, engine: Engine) -> io::Result<()> {
    for other in Engine::ALL.into_iter().filter(|other| *other != engine) {
        match fs::remove_dir_all(store.join(other.name())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Moves a doubtful store aside as `store.bad-N`, for an operator to look at; the one moved before it goes.
pub(crate) fn quarantine(store: &Path) -> io::Result<()> {
    let Some(parent) = store.parent().filter(|_| store.exists()) else { return Ok(()) };
    let mut number = 0;
    for bad in quarantined(parent)? {
        number = number.max(bad.0 + 1);
        fs::remove_dir_all(bad.1)?;
    }
    fs::rename(store, parent.join(format!("store.bad-{number}")))?;
    fs::File::open(parent)?.sync_all()
}

fn quarantined(parent: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("store.bad-"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    //! One conformance suite, run for each engine and for the model that says what they must do.

    use super::*;
    use proptest::prelude::*;
    use tempfile::TempDir;

    /// The model: a map in memory, written whole to one file by `flush`.
    struct Model {
        pairs: BTreeMap<Vec<u8>, Vec<u8>>,
        file: PathBuf,
    }

    impl Model {
        fn open(folder: &Path) -> Result<Self, StoreError> {
            let file = folder.join("model");
            let mut pairs = BTreeMap::new();
            if let Ok(bytes) = fs::read(&file) {
                let (body, digest) =
                    bytes.split_last_chunk::<32>().ok_or(StoreError::Doubtful("too short"))?;
                if verifier::sha256(&[body]) != *digest {
                    return Err(StoreError::Doubtful("malformed"));
                }
                let mut rest = body;
                let mut next = || {
                    let (length, tail) = rest.split_first_chunk::<4>()?;
                    let (bytes, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                    rest = tail;
                    Some(bytes.to_vec())
                };
                while let (Some(key), Some(value)) = (next(), next()) {
                    pairs.insert(key, value);
                }
            }
            Ok(Self { pairs, file })
        }
    }

    impl Store for Model {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.pairs.get(key).cloned())
        }

        fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
            self.pairs.iter().try_for_each(|(key, value)| visit(key, value))
        }

        fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
            for (key, value) in batch {
                match value {
                    Some(value) => self.pairs.insert(key, value),
                    None => self.pairs.remove(&key),
                };
            }
            Ok(())
        }

        fn flush(&mut self) -> Result<(), StoreError> {
            let mut bytes = Vec::new();
            for part in self.pairs.iter().flat_map(|(key, value)| [key, value]) {
                bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
                bytes.extend_from_slice(part);
            }
            let digest = verifier::sha256(&[&bytes]);
            bytes.extend_from_slice(&digest);
            Ok(fs::write(&self.file, bytes)?)
        }
    }

    type Open = fn(&Path) -> Result<Box<dyn Store>, StoreError>;

    const SUBJECTS: [(&str, Open); 3] = [
        ("sled", |folder| Engine::Sled.open(folder)),
        ("fjall", |folder| Engine::Fjall.open(folder)),
        ("model", |folder| Ok(Box::new(Model::open(folder)?))),
    ];

    fn pairs(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        store
            .each(&mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                Ok(())
            })
            .unwrap();
        found
    }

    fn batch(changes: &[(&[u8], Option<&[u8]>)]) -> Batch {
        changes.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path);
            }
        }
        found
    }

    #[test]
    fn the_last_value_wins_and_what_is_removed_is_gone() {
        for (name, open) in SUBJECTS {
            let dir = TempDir::new().unwrap();
            let mut store = open(dir.path()).unwrap();
            assert_eq!((store.get(b"a").unwrap(), pairs(&*store)), (None, Vec::new()), "{name}");
            store.apply(batch(&[(b"a", Some(b"1")), (b"b", Some(b"")), (&[0], Some(b"meta"))])).unwrap();
            store.apply(batch(&[(b"a", Some(b"2")), (b"b", None), (b"never", None)])).unwrap();
            store.apply(Batch::new()).unwrap();
            assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"2"[..]), "{name}");
            assert_eq!(store.get(b"b").unwrap(), None, "{name}");
            assert_eq!(
                pairs(&*store),
                [(vec![0], b"meta".to_vec()), (b"a".to_vec(), b"2".to_vec())],
                "{name}"
            );
        }
    }

    #[test]
    fn iteration_is_complete_and_in_order_and_ends_where_the_visitor_says() {
        for (name, open) in SUBJECTS {
            let dir = TempDir::new().unwrap();
            let mut store = open(dir.path()).unwrap();
            let all: Vec<_> = (0..3000u32).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 100])).collect();
            for part in all.chunks(700).rev() {
                store
                    .apply(part.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect())
                    .unwrap();
            }
            assert!(pairs(&*store) == all, "{name}");
            let mut seen = 0;
            let ended = store.each(&mut |_, _| {
                seen += 1;
                if seen == 10 { Err(StoreError::Doubtful("enough")) } else { Ok(()) }
            });
            assert!(matches!(ended, Err(StoreError::Doubtful("enough"))) && seen == 10, "{name}");
        }
    }

    #[test]
    fn a_crash_leaves_whole_batches() {
        for (name, open) in SUBJECTS {
            let dir = TempDir::new().unwrap();
            let mut store = open(dir.path()).unwrap();
            for round in 0..40u8 {
                store.apply((0..50u8).map(|key| (vec![key], Some(vec![round; 200]))).collect()).unwrap();
                if round % 8 == 0 {
                    store.flush().unwrap();
                }
                // What a kill at this moment leaves to the next process.
                let crashed = TempDir::new().unwrap();
                copy(dir.path(), crashed.path());
                let found = pairs(&*open(crashed.path()).unwrap());
                assert!(found.is_empty() || found.len() == 50, "{name}: {} of a batch", found.len());
                assert!(found.iter().all(|(_, value)| *value == found[0].1), "{name}: parts of two batches");
            }
        }
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    #[test]
    fn what_was_flushed_is_there_after_reopening() {
        for (name, open) in SUBJECTS {
            let dir = TempDir::new().unwrap();
            for round in 0..5u8 {
                let mut store = open(dir.path()).unwrap();
                assert_eq!(pairs(&*store).len(), usize::from(round), "{name}");
                store.apply(batch(&[(&[round], Some(&[round; 5000]))])).unwrap();
                store.flush().unwrap();
            }
        }
    }

    #[test]
    fn a_store_of_garbage_is_refused_and_never_read_as_something_else() {
        for (name, open) in SUBJECTS {
            let dir = TempDir::new().unwrap();
            let mut store = open(dir.path()).unwrap();
            for n in 0..100u8 {
                store.apply(batch(&[(&[n], Some(&[n; 1000]))])).unwrap();
            }
            store.flush().unwrap();
            drop(store);
            for path in files(dir.path()) {
                let bytes: Vec<u8> =
                    (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
                fs::write(path, bytes).unwrap();
            }
            // An engine may drop what it cannot read and open empty; it must not give other values.
            match guarded(|| open(dir.path())) {
                Err(_) => {}
                Ok(store) => {
                    let mut found = Vec::new();
                    let _ = guarded(|| {
                        store.each(&mut |key, value| {
                            found.push((key.to_vec(), value.to_vec()));
                            Ok(())
                        })
                    });
                    assert!(found.is_empty(), "{name}: {} pairs", found.len());
                }
            }
        }
    }

    #[test]
    fn each_engine_has_a_folder_of_its_own_and_the_other_is_removed() {
        let dir = TempDir::new().unwrap();
        for engine in Engine::ALL {
            let mut store = engine.open(dir.path()).unwrap();
            store.apply(batch(&[(b"a", Some(engine.name().as_bytes()))])).unwrap();
            store.flush().unwrap();
        }
        for engine in Engine::ALL {
            let value = engine.open(dir.path()).unwrap().get(b"a").unwrap();
            assert_eq!(value.as_deref(), Some(engine.name().as_bytes()));
        }
        remove_others(dir.path(), Engine::Fjall).unwrap();
        assert!(!dir.path().join("sled").exists() && dir.path().join("fjall").exists());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Vec<(u8, Option<u16>)>),
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let change = (0..12u8, proptest::option::of(any::<u16>()));
        let step = prop_oneof![
            8 => proptest::collection::vec(change, 0..8).prop_map(Step::Apply),
            1 => Just(Step::Reopen),
        ];
        proptest::collection::vec(step, 1..20)
    }

    /// Cases tried; ten times as many in a long run, which sets the variable. Each opens every engine on a disk.
    fn cases() -> u32 {
        if std::env::var_os("PROPTEST_CASES").is_some() { 240 } else { 24 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(cases()))]

        #[test]
        fn every_engine_does_what_a_map_does(steps in steps()) {
            for (name, open) in SUBJECTS {
                let dir = TempDir::new().unwrap();
                let mut store = open(dir.path()).unwrap();
                let mut model = BTreeMap::new();
                for step in &steps {
                    match step {
                        Step::Apply(changes) => {
                            let changes: Batch = changes
                                .iter()
                                .map(|(key, value)| (vec![*key], value.map(|value| value.to_be_bytes().to_vec())))
                                .collect();
                            for (key, value) in &changes {
                                match value {
                                    Some(value) => model.insert(key.clone(), value.clone()),
                                    None => model.remove(key),
                                };
                            }
                            store.apply(changes).unwrap();
                        }
                        Step::Reopen => {
                            store.flush().unwrap();
                            drop(store);
                            store = open(dir.path()).unwrap();
                        }
                    }
                    let found: BTreeMap<_, _> = pairs(&*store).into_iter().collect();
                    prop_assert_eq!(&found, &model, "{}", name);
                }
            }
        }
    }
}
