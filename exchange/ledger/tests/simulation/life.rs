//! One life of a journal: commits, misfortunes, restarts, as a seed decides.

use crate::{
    ensure,
    entry::prepared,
    model::{
        Expected, Model, Plan, RESOURCE, ROWS, Who, confirm_receipt, holder_key, record, root_of, row_key,
    },
};
use ledger::{
    Command, Committed, Key, LedgerKeys, Outcome, PreparedHolder, PreparedSegment, Refused, Written,
    record::{NewHolder, Record},
    sim::{self, Choices, End, Journal, Settings, SimDisk, SimEpochs, Sync},
};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};
use verifier::{checkpoint::Checkpoint, merkle::verify_inclusion, note::SignedNote};

const ORIGIN: &str = "log.example/simulation";
const START_MS: u64 = 20_000 * 86_400_000;
/// Small, so that a life has many.
const SEGMENT_BYTES: u64 = 12 << 10;
const GROUP_BYTES: usize = 8 << 10;
const MOST_MEMBERS: u64 = 4;

static LOG_KEY: LazyLock<Vec<u8>> =
    LazyLock::new(|| Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec());

/// What happened in one life or in many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) acknowledged: u64,
    pub(crate) starts: u64,
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    /// Unanswered groups that a start dropped.
    pub(crate) torn: u64,
    /// Unanswered groups that a start found whole.
    pub(crate) adopted: u64,
    /// Damaged journals that a start refused, and those whose damage touched nothing that counts.
    pub(crate) refused: u64,
    pub(crate) harmless: u64,
    /// Files that went under the running journal.
    pub(crate) noticed: u64,
    /// Groups refused because the disk was full.
    pub(crate) full: u64,
    pub(crate) rotations: u64,
    /// Changes of epoch that were made to their end, and those that a misfortune cut off.
    pub(crate) epochs: u64,
    pub(crate) cut_off: u64,
    /// Batches of hosted rows that were committed, and entries by which segments of them were written anew.
    pub(crate) batches: u64,
    pub(crate) rewritten: u64,
}

impl Told {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            acknowledged,
            starts,
            kills,
            power_cuts,
            torn,
            adopted,
            refused,
            harmless,
            noticed,
            full,
            rotations,
            epochs,
            cut_off,
            batches,
            rewritten,
        } = other;
        self.acknowledged += acknowledged;
        self.starts += starts;
        self.kills += kills;
        self.power_cuts += power_cuts;
        self.torn += torn;
        self.adopted += adopted;
        self.refused += refused;
        self.harmless += harmless;
        self.noticed += noticed;
        self.full += full;
        self.rotations += rotations;
        self.epochs += epochs;
        self.cut_off += cut_off;
        self.batches += batches;
        self.rewritten += rewritten;
    }
}

pub(crate) struct Life {
    choices: Choices,
    disk: SimDisk,
    settings: Settings,
    keys: LedgerKeys,
    journal: Option<Journal>,
    model: Model,
    /// The model as it is if the group that was not answered is there.
    in_flight: Option<Model>,
    /// The files at some earlier moment.
    old: Option<BTreeMap<PathBuf, Vec<u8>>>,
    pub(crate) story: Vec<String>,
    pub(crate) told: Told,
}

impl Life {
    pub(crate) fn new(seed: u64, sync: Sync) -> Self {
        let disk = SimDisk::new(!seed, sync);
        let epochs = Arc::new(SimEpochs::new(&disk, ORIGIN));
        Self {
            choices: Choices::new(seed),
            disk,
            settings: Settings {
                origin: ORIGIN.to_owned(),
                segment_bytes: SEGMENT_BYTES,
                group_bytes: GROUP_BYTES,
                clock: Arc::new(AtomicU64::new(START_MS)),
            },
            keys: LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: LOG_KEY.clone(), epochs },
            journal: None,
            model: Model::default(),
            in_flight: None,
            old: None,
            story: Vec::new(),
            told: Told::default(),
        }
    }

    fn tell(&mut self, line: impl Into<String>) {
        self.story.push(line.into());
    }

    /// Lives to the end; what went wrong.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.start()?;
        for _ in 0..6 + self.choices.below(16) {
            self.step()?;
            if self.journal.as_ref().is_none_or(|journal| journal.stopped().is_some()) || self.disk.is_down()
            {
                self.end()?;
            }
        }
        // The last end, and all of it once more.
        self.idle();
        self.end()?;
        let journal = self.journal.as_ref().ok_or("the journal is closed")?;
        let verified = sim::verify(&self.disk, &self.settings, &self.keys)
            .map_err(|error| format!("verification refuses what a start accepts: {error}"))?;
        self.model.confirm_leaves(&verified.leaves)?;
        self.model.confirm_proofs(&root_of(&verified.leaves))?;
        ensure!(verified.state_digest == journal.state().digest(), "replay gives another state");
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.choices.below(44) {
            0..=11 => self.commit()?,
            12..=14 => self.idle(),
            15 | 16 => self.journal(|journal| journal.guard(), "guard"),
            17 => self.journal(|journal| journal.keep(), "keeper"),
            18 => {
                let now = self.settings.clock.load(Ordering::Relaxed);
                let moved = now + self.choices.below(600_000) - 60_000;
                self.settings.clock.store(moved, Ordering::Relaxed);
                self.tell(format!("clock {moved}"));
            }
            19..=21 => {
                let operations = self.choices.below(25);
                self.disk.end_after(operations);
                self.tell(format!("the end after {operations} operations"));
                self.commit()?;
            }
            22 => {
                let syncs = self.choices.below(3);
                self.disk.fail_sync_after(syncs);
                self.tell(format!("a failed sync after {syncs}"));
                self.commit()?;
            }
            23 => {
                let writes = self.choices.below(3);
                self.disk.fail_write_after(writes);
                self.tell(format!("a failed write after {writes}"));
                self.commit()?;
            }
            24 => {
                let room = self.choices.below(SEGMENT_BYTES);
                self.disk.leave_room(room);
                self.tell(format!("room for {room} bytes"));
                for _ in 0..self.choices.below(8) {
                    self.commit()?;
                }
            }
            25 | 26 => self.end()?,
            27 | 28 => self.damaged_start()?,
            29 => self.rotate()?,
            30 => {
                let operations = self.choices.below(30);
                self.disk.end_after(operations);
                self.tell(format!("the end after {operations} operations"));
                self.rotate()?;
            }
            31 => {
                let syncs = self.choices.below(8);
                self.disk.fail_sync_after(syncs);
                self.tell(format!("a failed sync after {syncs}"));
                self.rotate()?;
            }
            32 => {
                let room = self.choices.below(2 * SEGMENT_BYTES);
                self.disk.leave_room(room);
                self.tell(format!("room for {room} bytes"));
                self.rotate()?;
            }
            33 => self.harm_under_the_running()?,
            34..=37 => {
                // Rows of the second may take the places of those of the first.
                self.batch()?;
                self.batch()?;
                self.rewrite()?;
            }
            38 | 39 => self.rewrite()?,
            40 | 41 => {
                let operations = self.choices.below(12);
                self.disk.end_after(operations);
                self.tell(format!("the end after {operations} operations"));
                self.batch()?;
            }
            _ => {
                let operations = self.choices.below(12);
                self.disk.end_after(operations);
                self.tell(format!("the end after {operations} operations"));
                self.rewrite()?;
            }
        }
        Ok(())
    }

    fn journal(&mut self, act: impl FnOnce(&mut Journal), what: &str) {
        self.tell(what);
        if let Some(journal) = &mut self.journal {
            act(journal);
        }
    }

    fn idle(&mut self) {
        self.journal(|journal| journal.idle(), "idle");
    }

    /// The process or the machine ends, and the journal starts again.
    fn end(&mut self) -> Result<(), String> {
        self.journal = None;
        self.go_down();
        self.start()
    }

    fn go_down(&mut self) {
        let end = if self.choices.chance(1, 2) { End::Kill } else { End::PowerCut };
        self.tell(format!("{end:?}"));
        *match end {
            End::Kill => &mut self.told.kills,
            End::PowerCut => &mut self.told.power_cuts,
        } += 1;
        self.disk.restart(end);
    }

    /// Starts until it succeeds; a start may end in the middle, too.
    fn start(&mut self) -> Result<(), String> {
        self.disk.leave_room(u64::MAX);
        loop {
            if self.choices.chance(1, 6) {
                let operations = self.choices.below(16);
                self.disk.end_after(operations);
                self.tell(format!("the end after {operations} operations"));
            } else if self.choices.chance(1, 8) {
                let syncs = self.choices.below(4);
                self.disk.fail_sync_after(syncs);
                self.tell(format!("a failed sync after {syncs}"));
            }
            let opened = Journal::open(&self.disk, &self.settings, &self.keys);
            if self.disk.is_down() || (opened.is_err() && self.disk.has_failed()) {
                self.tell("the start did not end");
                self.go_down();
                continue;
            }
            let journal = opened.map_err(|error| format!("refused though nothing is damaged: {error}"))?;
            return self.started(journal);
        }
    }

    /// What a start accepted is what was acknowledged.
    fn started(&mut self, journal: Journal) -> Result<(), String> {
        self.told.starts += 1;
        if let Some(in_flight) = self.in_flight.take() {
            let more = in_flight.leaves.len() > self.model.leaves.len();
            if more && journal.found().len() == in_flight.leaves.len() {
                self.told.adopted += 1;
                self.model = in_flight;
            } else if more {
                self.told.torn += 1;
            }
        }
        self.tell(format!("started with {}", journal.found().len()));
        self.model.confirm_leaves(journal.found())?;
        self.model.confirm_state(&journal)?;
        self.journal = Some(journal);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        let Some(mut journal) = self.journal.take_if(|journal| journal.stopped().is_none()) else {
            return Ok(());
        };
        let mut plans = Vec::new();
        let mut commands = Vec::new();
        for _ in 0..1 + self.choices.below(MOST_MEMBERS) {
            let (plan, command) = self.plan(&journal);
            plans.push(plan);
            commands.push(command);
        }
        let proofs = self.choices.chance(1, 4);
        commands.iter_mut().for_each(|command| command.inline_proof = proofs);
        let mut after = self.model.clone();
        let expected: Vec<_> = plans.iter().map(|plan| after.take(plan)).collect();
        let segments = journal.segment();
        let replies = journal.commit(commands);
        self.told.rotations += u64::from(journal.segment() - segments);
        self.tell(format!("{plans:?}"));
        self.journal = Some(journal);

        if replies.iter().any(|reply| matches!(reply, Err(Refused::Stopped))) {
            let all = replies.iter().all(|reply| matches!(reply, Err(Refused::Stopped)));
            ensure!(all, "a group is answered in part: {replies:?}");
            self.tell("stopped");
            self.in_flight = Some(after);
            return Ok(());
        }
        if replies.iter().any(|reply| matches!(reply, Err(Refused::Full))) {
            let all = replies.iter().all(|reply| matches!(reply, Err(Refused::Full)));
            ensure!(all, "a group is refused in part: {replies:?}");
            self.tell("full");
            self.told.full += 1;
            return Ok(());
        }
        let mut index = self.model.leaves.len() as u64;
        let mut acknowledged = Vec::new();
        for (reply, expected) in replies.into_iter().zip(expected) {
            match (reply, expected) {
                (Ok(Outcome::Committed(committed)), Expected::Committed) => {
                    confirm_receipt(&committed, index)?;
                    after.leaves[index as usize] = Some(committed.leaf_hash);
                    index += 1;
                    acknowledged.push(committed);
                }
                (Ok(Outcome::Changed), Expected::Changed) => {}
                (reply, expected) => return Err(format!("{reply:?}, expected {expected:?}")),
            }
        }
        self.model = after;
        self.told.acknowledged += acknowledged.len() as u64;
        if proofs {
            self.confirm_proofs(&acknowledged)?;
        }
        if self.choices.chance(1, 8) {
            self.old = Some(self.disk.contents());
        }
        Ok(())
    }

    /// A batch of hosted rows; the first one brings their resource.
    fn batch(&mut self) -> Result<(), String> {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.stopped().is_none()) else {
            return Ok(());
        };
        let mut record = Record::default();
        let known = self.model.resource().and_then(|label| journal.state().holder_key(&label));
        let key = known.unwrap_or_else(|| {
            let new = journal.new_holder(RESOURCE);
            record.new_holders.push(new.entered());
            new.holder_key
        });
        let choices = &mut self.choices;
        let rows: BTreeMap<u8, Option<u8>> = (0..ROWS)
            .filter_map(|n| match choices.below(4) {
                0 => Some((n, None)),
                1 => Some((n, Some(choices.below(256) as u8))),
                _ => None,
            })
            .collect();
        let plain: Vec<(u8, Option<Vec<u8>>)> =
            rows.iter().map(|(n, row)| (*n, row.map(|byte| vec![byte; 9]))).collect();
        let written: Vec<(Key, Written<'_>)> = plain
            .iter()
            .map(|(n, row)| (row_key(*n), row.as_deref().map_or(Written::Removal(b"gone"), Written::Row)))
            .collect();
        self.story.push(format!("rows {rows:?}"));
        if written.is_empty() {
            return Ok(());
        }
        // Without room, or by a failed write: nothing is left of the batch.
        let Ok(prepared) = journal.rows().put(&key, &written) else { return Ok(()) };
        record.documents = prepared.documents();
        let (before, label) = (self.told.acknowledged, key.label);
        self.put(record, |model| model.bring(label, &rows))?;
        self.told.batches += self.told.acknowledged - before;
        Ok(())
    }

    /// The rows that are worth it are written anew, or one is erased: nothing else is told apart by it.
    fn rewrite(&mut self) -> Result<(), String> {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.stopped().is_none()) else {
            return Ok(());
        };
        let key = self.model.resource().and_then(|label| journal.state().holder_key(&label));
        let Some(key) = key else { return Ok(()) };
        let erased = self.choices.chance(1, 3).then(|| self.choices.below(ROWS.into()) as u8);
        self.story.push(format!("rewritten without {erased:?}"));
        let rows = journal.rows();
        let prepared = match (erased, rows.due()) {
            (Some(n), _) => rows.erase(&key, &[row_key(n)]),
            (None, Some(due)) => rows.compact(&key, &due).map(|prepared| vec![prepared]),
            (None, None) => return Ok(()),
        };
        let Ok(prepared) = prepared else { return Ok(()) };
        let documents: Vec<_> = prepared.iter().flat_map(PreparedSegment::documents).collect();
        if documents.is_empty() {
            return Ok(());
        }
        let before = self.told.acknowledged;
        let record = Record { documents, ..Record::default() };
        self.put(record, |model| model.erase(erased))?;
        self.told.rewritten += self.told.acknowledged - before;
        Ok(())
    }

    /// Commits one entry of the exchange's own.
    fn put(&mut self, record: Record, change: impl FnOnce(&mut Model)) -> Result<(), String> {
        let mut after = self.model.clone();
        change(&mut after);
        after.leaves.push(None);
        let command = Command {
            permit_or_denial: prepared(&record, Vec::new()),
            reads: Vec::new(),
            ends_at_ms: u64::MAX,
            inline_proof: false,
        };
        let Some(journal) = &mut self.journal else { return Ok(()) };
        match journal.commit(vec![command]).pop() {
            Some(Ok(Outcome::Committed(committed))) => {
                confirm_receipt(&committed, self.model.leaves.len() as u64)?;
                if let Some(last) = after.leaves.last_mut() {
                    *last = Some(committed.leaf_hash);
                }
                self.model = after;
                self.told.acknowledged += 1;
            }
            Some(Err(Refused::Stopped)) => {
                self.tell("stopped");
                self.in_flight = Some(after);
                return Ok(());
            }
            Some(Err(Refused::Full)) => self.told.full += 1,
            reply => return Err(format!("rows: {reply:?}")),
        }
        // Whatever became of it, what is read is what was acknowledged.
        match &self.journal {
            Some(journal) if !self.disk.is_down() && journal.stopped().is_none() => {
                self.model.confirm_rows(journal)
            }
            _ => Ok(()),
        }
    }

    /// Changes the epoch, or finishes the change that was cut off.
    fn rotate(&mut self) -> Result<(), String> {
        let Some(mut journal) = self.journal.take_if(|journal| journal.stopped().is_none()) else {
            return Ok(());
        };
        let (before, rotating) = (journal.state().epoch(), journal.state().is_rotating());
        let (rotated, replies) = journal.rotate(|record| prepared(record, Vec::new()));
        self.tell(format!("an epoch from {before}: {}", rotated.as_ref().map_or(0, |epoch| *epoch)));
        let mut stopped = false;
        for reply in replies {
            match reply {
                Ok(Outcome::Committed(committed)) => {
                    confirm_receipt(&committed, self.model.leaves.len() as u64)?;
                    self.model.leaves.push(Some(committed.leaf_hash));
                    self.told.acknowledged += 1;
                }
                Err(Refused::Stopped) => stopped = true,
                Err(Refused::Full) => self.told.full += 1,
                reply => return Err(format!("a key event: {reply:?}")),
            }
        }
        if stopped {
            let mut after = self.model.clone();
            after.leaves.push(None);
            self.in_flight = Some(after);
        }
        match rotated {
            Ok(epoch) => {
                ensure!(epoch == before + u32::from(!rotating), "epoch {epoch} comes after {before}");
                ensure!(!journal.state().is_rotating(), "the change has no end");
                self.told.epochs += 1;
            }
            Err(_) => self.told.cut_off += 1,
        }
        // Whatever became of it, no key is lost while it runs.
        if !self.disk.is_down() && !stopped {
            self.model.confirm_state(&journal)?;
        }
        self.journal = Some(journal);
        Ok(())
    }

    /// The proofs of one group lead to one signed checkpoint.
    fn confirm_proofs(&self, group: &[Committed]) -> Result<(), String> {
        let Some(first) = group.first() else { return Ok(()) };
        let key = self.journal.as_ref().ok_or("the journal is closed")?.verifier_key();
        let text = &first.proof.as_ref().ok_or("no proof")?.checkpoint;
        let note = SignedNote::parse(text).and_then(|note| note.verify(std::slice::from_ref(key)));
        let checkpoint = note.ok().and_then(|note| Checkpoint::parse(&note).ok()).ok_or("the checkpoint")?;
        for committed in group {
            let proof = committed.proof.as_ref().ok_or("no proof")?;
            let right = proof.checkpoint == *text
                && verify_inclusion(
                    committed.index,
                    checkpoint.size,
                    &committed.leaf_hash,
                    &proof.path,
                    &checkpoint.root,
                );
            ensure!(right, "the proof of entry {} is wrong", committed.index);
        }
        Ok(())
    }

    fn plan(&mut self, journal: &Journal) -> (Plan, Command) {
        let choices = &mut self.choices;
        let (mut new, mut keys) = (Vec::new(), BTreeMap::new());
        let mut some = |choices: &mut Choices, model: &Model| -> Vec<Who> {
            let chosen = (0..5u8).filter(|_| choices.chance(1, 3)).collect::<Vec<_>>();
            let mut label = |n: u8| {
                model.label(n).unwrap_or_else(|| {
                    let holder = journal.new_holder(holder_key(n));
                    new.push(new_holder(&holder));
                    keys.insert(holder.label, holder.holder_key);
                    holder.label
                })
            };
            chosen.into_iter().map(|n| Who(n, label(n))).collect()
        };
        let model = &self.model;
        let plan = match choices.below(12) {
            0..=2 => Plan::Note,
            3..=5 => {
                let n = choices.below(4) as u8;
                let version = model.version(n) + 1;
                let body = (version == 1 || choices.chance(1, 2)).then(|| choices.below(256) as u8);
                Plan::License { n, version, holders: some(choices, model), body }
            }
            6 | 7 => Plan::Use { holders: some(choices, model) },
            8 | 9 => Plan::Count { n: choices.below(3) as u8, amount: choices.below(4) as u32 },
            10 => {
                let n = choices.below(3) as u8;
                Plan::Document { n, version: model.document_version(n) + 1 }
            }
            _ => {
                let n = choices.below(6) as u8;
                if model.is_bound(n) { Plan::Note } else { Plan::Bind { n } }
            }
        };
        let part = match &plan {
            Plan::License { body: Some(body), .. } => Some(vec![*body]),
            Plan::License { body: None, .. } => None,
            Plan::Bind { n } => Some(vec![*n]),
            _ => Some(vec![7; choices.below(1200) as usize]),
        };
        // Bodies are the holders': whoever loses a key cannot read them any more.
        let holders: Vec<_> = match &plan {
            Plan::License { holders, .. } => holders
                .iter()
                .filter_map(|who| keys.remove(&who.1).or_else(|| journal.state().holder_key(&who.1)))
                .collect(),
            _ => Vec::new(),
        };
        let parts = part.map(|plain| journal.seal_subject(0, &holders, &plain)).into_iter().collect();
        let record = record(&plan, new);
        let command = Command {
            permit_or_denial: prepared(&record, parts),
            reads: Vec::new(),
            ends_at_ms: u64::MAX,
            inline_proof: false,
        };
        (plan, command)
    }

    /// The journal is idle long enough for its guard, ends, is damaged and started: refused, and nothing is changed, or
    /// nothing is lost.
    fn damaged_start(&mut self) -> Result<(), String> {
        if self.choices.chance(1, 2) {
            self.idle();
        }
        self.journal(|journal| journal.guard(), "guard");
        let stopped = self.journal.take().is_none_or(|journal| journal.stopped().is_some());
        if stopped || self.disk.is_down() {
            return Ok(());
        }
        self.disk.restart(End::Kill);
        let good = self.disk.snapshot();
        let harm = self.harm();
        self.tell(format!("harm: {harm}"));
        let harmed = self.disk.contents();
        match Journal::open(&self.disk, &self.settings, &self.keys) {
            Err(error) => {
                self.tell(format!("refused: {error}"));
                ensure!(self.disk.contents() == harmed, "{harm}: the refused start changed the files");
                self.told.refused += 1;
                self.disk.restore(&good);
                self.start()
            }
            Ok(journal) => {
                self.told.harmless += 1;
                self.started(journal).map_err(|error| format!("{harm} is accepted: {error}"))
            }
        }
    }

    fn segments(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "mxj");
        self.disk.contents().into_iter().filter(|(path, _)| is_segment(path)).collect()
    }

    /// Damages the files at rest; what was done.
    fn harm(&mut self) -> String {
        let guard = sim::journal_folder().join("guard");
        let mut segments = self.segments();
        let one = self.choices.below(segments.len() as u64) as usize;
        let other = self.choices.below(segments.len() as u64) as usize;
        let (path, bytes) = segments[one].clone();
        let used = used(&bytes);
        let name = path.file_name().unwrap_or_default().display().to_string();
        match self.choices.below(9) {
            0..=2 => {
                let (at, bit) = (self.choices.below(used + 16), self.choices.below(8));
                let mut bytes = bytes;
                if let Some(byte) = bytes.get_mut(at as usize) {
                    *byte ^= 1 << bit;
                }
                self.disk.damage(&path, bytes);
                format!("bit {bit} of byte {at} of {name} is flipped")
            }
            3 => {
                let at = self.choices.below(used + 1) as usize;
                self.disk.damage(&path, bytes[..at.min(bytes.len())].to_vec());
                format!("{name} is cut to {at}")
            }
            4 => {
                self.disk.lose(&path);
                format!("{name} is deleted")
            }
            5 => {
                let (other_path, other_bytes) = segments.swap_remove(other);
                self.disk.damage(&other_path, bytes);
                self.disk.damage(&path, other_bytes);
                format!("{name} and {} change places", other_path.display())
            }
            6 => {
                let number = segments.len() as u64 - self.choices.below(2);
                self.disk.damage(&sim::journal_folder().join(format!("{number:010}.mxj")), bytes);
                format!("{name} is there as number {number}, too")
            }
            7 if self.choices.chance(1, 2) => {
                self.disk.lose(&guard);
                "the guard is deleted".to_owned()
            }
            7 => {
                let at = self.choices.below(8192) as usize;
                let mut bytes = self.disk.contents().remove(&guard).unwrap_or_default();
                bytes[at] ^= 1;
                bytes[(at + 4096) % 8192] ^= 1;
                self.disk.damage(&guard, bytes);
                format!("both slots of the guard are damaged at {}", at % 4096)
            }
            _ => {
                let Some(old) = self.old.clone() else { return "nothing".to_owned() };
                for (path, _) in &segments {
                    self.disk.lose(path);
                }
                let of_journal = |path: &PathBuf| path.starts_with(sim::journal_folder()) && *path != guard;
                for (path, bytes) in old.into_iter().filter(|(path, _)| of_journal(path)) {
                    self.disk.damage(&path, bytes);
                }
                "the segments are rolled back".to_owned()
            }
        }
    }

    /// A file goes or is cut while the journal runs: it is noticed, and nothing is answered any more.
    fn harm_under_the_running(&mut self) -> Result<(), String> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let current = format!("{:010}.mxj", journal.segment());
        let good = self.disk.snapshot();
        let segments = self.segments();
        let is_begun = |path: &PathBuf| path.file_name().is_some_and(|name| *name <= *current);
        let begun: Vec<_> =
            segments.into_iter().filter(|(path, bytes)| is_begun(path) && !bytes.is_empty()).collect();
        let (path, bytes) = &begun[self.choices.below(begun.len() as u64) as usize];
        let name = path.file_name().unwrap_or_default().display().to_string();
        if self.choices.chance(1, 2) {
            self.disk.lose(path);
            self.tell(format!("{name} is deleted under the running journal"));
        } else {
            let len = self.choices.below(bytes.len() as u64) as usize;
            self.disk.damage(path, bytes[..len].to_vec());
            self.tell(format!("{name} is cut to {len} under the running journal"));
        }
        let model = self.model.clone();
        if name == current && self.choices.chance(1, 2) {
            // A group in which nothing is committed writes nothing and answers nothing that needs it.
            let acknowledged = self.told.acknowledged;
            self.commit()?;
            ensure!(self.told.acknowledged == acknowledged, "answered from a segment that is gone");
        }
        if let Some(journal) = &mut self.journal {
            journal.inspect();
            ensure!(journal.stopped().is_some(), "{name} is gone and nobody noticed");
        }
        self.told.noticed += 1;
        self.journal = None;
        (self.model, self.in_flight) = (model, None);
        self.disk.restore(&good);
        self.disk.restart(End::Kill);
        self.start()
    }
}

/// Where the frames of a segment end, by their lengths alone: no random byte decides.
fn used(bytes: &[u8]) -> u64 {
    let mut at = 64;
    while bytes.get(at..at + 4) == Some(b"MXF1") {
        let length = bytes[at + 8..].iter().take(4).fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length == 0 {
            // Torn behind its first bytes.
            break;
        }
        at += length;
    }
    at.min(bytes.len()) as u64
}

fn new_holder(holder: &PreparedHolder) -> NewHolder {
    holder.entered()
}
