//! A disk without room: refused and recovered below the reserve, stopped for good at a real error, nothing lost.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::json;
use tempfile::TempDir;
use tests::{Issued, Setup, draft, eventually, natural};

use crate::story::Stories;
use crate::{Lacking, Violation, caught, must};

/// Size of the mounted file system: room for a journal of small segments and for more.
const MOUNTED_MIB: u64 = 96;
/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A file system in memory, unmounted when dropped.
struct Mounted {
    path: PathBuf,
    _folder: TempDir,
}

impl Mounted {
    fn new() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Lacking("needs root, to mount a file system".to_owned()).into());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        fs::create_dir(&path).unwrap();
        let size = std::ffi::CString::new(format!("size={MOUNTED_MIB}m")).unwrap();
        match rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), size.as_c_str()) {
            Ok(()) => Ok(Self { path, _folder: folder }),
            Err(error) => Err(Lacking(format!("cannot mount a tmpfs: {error}")).into()),
        }
    }

    fn free_bytes(&self) -> u64 {
        let vfs = rustix::fs::statvfs(&self.path).unwrap();
        vfs.f_bavail * vfs.f_frsize
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Fills it until no more than `leave` bytes are free.
    fn fill(&self, leave: u64) {
        let mut file = File::options().append(true).create(true).open(self.ballast()).unwrap();
        let block = vec![1; 64 << 10];
        while self.free_bytes() > leave {
            let more = (self.free_bytes() - leave).min(block.len() as u64);
            if file.write(&block[..usize::try_from(more).unwrap()]).is_err() {
                return;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// Below the reserve it refuses, lives and recovers by itself.
async fn below_the_reserve() -> anyhow::Result<()> {
    let mounted = Mounted::new()?;
    let server = Setup::new().at(&mounted.path.join("data")).start().await;
    let mut issuer = server.party("issuer");
    let first = draft(&natural()).issue(&mut issuer).await;
    let size = server.size().await;
    mounted.fill(1 << 20);
    eventually("the journal's reserve", || async {
        let ready = server.admin("/ready").await;
        (ready.status == 503 && ready.json["journalFull"] == json!(true)).then_some(())
    })
    .await;
    assert_eq!(server.metric("miaoxiang_journal_full", &[]).await, 1);
    for (route, call) in [(Route::Issue, draft(&natural()).call()), (Route::Verify, first.verify(None))] {
        let before = server.answers(route, Code::JournalFull).await;
        let reply = issuer.send(&call).await;
        assert_eq!((reply.status, reply.code()), (503, Code::JournalFull.name()));
        assert!(reply.retry_after.is_some());
        assert!(verifier::receipt::cut(&reply.body).is_err(), "what decides nothing has no receipt");
        assert!(reply.json.get("verdict").is_none());
        assert_eq!(server.answers(route, Code::JournalFull).await, before + 1);
    }
    assert_eq!(server.size().await, size, "nothing was journaled");
    assert_eq!(server.admin("/health").await.status, 200, "alive");
    assert_eq!(server.public("/v1/log/checkpoint").await.status, 200, "what is public is served");

    mounted.make_room();
    let again = draft(&natural());
    eventually("room", || async { (server.admin("/ready").await.status == 200).then_some(()) }).await;
    let second = again.issue(&mut issuer).await;
    for license in [&first, &second] {
        let reply = issuer.send(&license.verify(None)).await.expect(200);
        assert_eq!(reply.json["verdict"], json!("valid"));
    }
    // What was refused meanwhile is counted in the journal, in entries of the exchange itself.
    eventually("the shed counts", || async { (server.size().await > size + 3).then_some(()) }).await;
    Ok(())
}

/// The segment that is written to, with its length.
fn current_segment(data: &Path) -> (PathBuf, u64) {
    let mut begun: Vec<PathBuf> = fs::read_dir(data.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "mxj"))
        .filter(|path| fs::read(path).unwrap().starts_with(b"MXS1"))
        .collect();
    begun.sort();
    let path = begun.pop().unwrap();
    let length = path.metadata().unwrap().len();
    (path, length)
}

/// Waits until the next segment is made ahead: without it the journal is full, and no write is tried.
async fn next_segment(data: &Path) {
    let journal = data.join("journal");
    loop {
        let prepared = fs::read_dir(&journal)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "mxj"))
            .any(|path| !fs::read(path).unwrap().starts_with(b"MXS1"));
        if prepared {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A write that finds no space ends all answering and loses nothing.
async fn a_write_without_space(failpoint: Option<&str>) -> anyhow::Result<()> {
    let mounted = Mounted::new()?;
    let data = mounted.path.join("data");
    let setup = Setup::new().at(&data).config(|config| config.journal.reserve_segments = 0);
    let mut server = setup.prepare().await;
    server.set_env("MIAOXIANG_FAILPOINT", failpoint);
    server.start();
    let mut issuer = server.party("issuer");
    let mut acknowledged: Vec<Issued> = Vec::new();
    for _ in 0..20 {
        acknowledged.push(draft(&natural()).issue(&mut issuer).await);
    }
    let size = server.size().await;
    next_segment(&data).await;
    // Segments are preallocated, so space can only run out under one when the file system breaks that promise: its
    // unused end is punched out, and everything that is free is taken.
    let (segment, length) = current_segment(&data);
    let bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let file = File::options().write(true).open(&segment).unwrap();
    file.set_len(used.next_multiple_of(4_096).min(length)).unwrap();
    file.set_len(length).unwrap();
    mounted.fill(0);
    assert_eq!(mounted.free_bytes(), 0);

    // Entries fit until the last page that is there is full; then none is answered any more.
    let mut party = issuer.again();
    let mut answered = 0;
    loop {
        let draft = draft(&natural());
        match party.try_send(&draft.call()).await {
            Ok(reply) if reply.status == 201 => {
                acknowledged.push(Issued::new(draft, &reply.json));
                answered += 1;
                must(answered < MOST_ANSWERED, || {
                    format!("{answered} entries are acknowledged and there is no room for them")
                })?;
            }
            // A 503 or 500 without a receipt says nothing about the request; it is no answer.
            Ok(reply) => {
                assert!(reply.status >= 500, "{}", reply.json);
                assert!(verifier::receipt::cut(&reply.body).is_err());
                if reply.code() != Code::JournalFull.name() {
                    break;
                }
                panic!("the reserve is 0, and the journal says it is full");
            }
            Err(_) => break,
        }
    }
    assert_eq!(server.exit_status(), Some(74), "{}", server.stderr());

    mounted.make_room();
    let report = server.log_verify();
    assert_eq!(report["size"].as_u64().unwrap(), size + answered);
    server.start();
    let mut issuer = server.party("issuer");
    for license in &acknowledged {
        let reply = issuer.send(&license.verify(None)).await.expect(200);
        assert_eq!(reply.json["verdict"], json!("valid"), "an acknowledged license is gone");
    }
    draft(&natural()).issue(&mut issuer).await;
    Ok(())
}

/// Load before the disk is filled, and while it is full.
const LOAD: Duration = Duration::from_millis(150);
/// Left free when it is filled: less than the reserve.
const LEFT_BYTES: u64 = 1 << 20;

/// More entries than fit in the last pages of a segment.
const MOST_ANSWERED: u64 = 100;

/// Runs all of it; the disk fills up `rounds` times under load.
pub(crate) async fn run(rounds: u32) -> anyhow::Result<()> {
    below_the_reserve().await?;
    a_write_without_space(None).await?;
    caught("a failed write is ignored", a_write_without_space(Some("ignore-write-error")).await)?;
    let summary = under_load(rounds).await?;
    println!("the disk full {rounds} times under load, and once at a start: {summary}");
    Ok(())
}

/// Filled and freed under load, cut down while it is full, started while it is full.
async fn under_load(rounds: u32) -> anyhow::Result<String> {
    let mounted = Mounted::new()?;
    let mut server = Setup::new().at(&mounted.path.join("data")).start().await;
    let mut stories = Stories::default();
    for round in 1..=rounds {
        let last = round == rounds;
        stories
            .tell(&mut server, async |server| {
                tokio::time::sleep(LOAD).await;
                mounted.fill(LEFT_BYTES);
                eventually("the journal's reserve", || async {
                    (server.admin("/ready").await.status == 503).then_some(())
                })
                .await;
                // What was under way by then is done.
                tokio::time::sleep(LOAD).await;
                let size = server.size().await;
                tokio::time::sleep(LOAD).await;
                assert_eq!(server.size().await, size, "a full journal takes no entry");
                assert_eq!(server.admin("/health").await.status, 200, "alive");
                if last {
                    server.kill();
                    return;
                }
                mounted.make_room();
                eventually("room", || async { (server.admin("/ready").await.status == 200).then_some(()) })
                    .await;
                tokio::time::sleep(LOAD).await;
                server.kill();
            })
            .await?;
        if last {
            // Whether it starts without room is its choice; what it says then is not silence, and nothing is lost.
            if let Err(said) = server.try_start() {
                must(!said.trim().is_empty(), || "a start on a full disk fails without a word".to_owned())?;
            }
            server.kill();
            mounted.make_room();
        }
        server.log_verify();
        server.try_start().map_err(Violation)?;
        stories.check(&server).await?;
    }
    stories.check_all(&server).await?;
    anyhow::ensure!(server.stop() == Some(0), "the exchange does not stop well: {}", server.stderr());
    server.log_verify();
    Ok(stories.summary())
}
