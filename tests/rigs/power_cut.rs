//! Power cuts under concurrent load.
//!
//! The data folder lies on a file system whose disk keeps every write that was not flushed in one process only: killing
//! it is a power cut that loses all of them, the worst that a disk may do. Acknowledged answers are kept outside.
//!
//! Two operators change the epoch all the while: after each cut the living open, and who was erased before stays so.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tests::Server;

use crate::cut_disk::{CutDisk, FileSystem};
use crate::story::{Stories, setup};
use crate::{Violation, caught, must, random_below, rotation};

/// Shortest and longest load before a cut, ms.
const LOAD_MS: std::ops::Range<u64> = 150..1_000;
/// After every so many cuts the whole journal is verified.
const VERIFY_EVERY: u32 = 10;
/// Load of a control, ms: far shorter than the seconds after which the kernel writes back by itself.
const CONTROL_MS: u64 = 600;
/// Fewest acknowledgements that make a control worth something.
const CONTROL_LEAST: usize = 20;
/// Takes every sync away from the process that it is loaded into.
const NO_SYNC: &str = "libeatmydata.so";

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Cuts `cuts` times on this file system, then the controls.
pub(crate) async fn run(file_system: FileSystem, cuts: u32) -> anyhow::Result<()> {
    let mut disk = CutDisk::new(file_system)?;
    let mut server = setup().at(&disk.folder().join("data")).prepare().await;
    let mut stories = Stories::default();
    server.start();
    let gone = rotation::erased(&server).await?;
    for cut in 1..=cuts {
        let wait = LOAD_MS.start + random_below(LOAD_MS.end - LOAD_MS.start);
        tell_and_cut(&mut stories, &mut server, &mut disk, wait).await?;
        if cut % VERIFY_EVERY == 0 || cut == cuts {
            server.log_verify();
        }
        server.try_start().map_err(Violation)?;
        stories.check(&server).await?;
        rotation::stays_erased(&server, &gone).await?;
    }
    stories.check_all(&server).await?;
    let epochs = rotation::destroyed(&server).await?;
    anyhow::ensure!(epochs != 0, "no epoch changed under load");
    anyhow::ensure!(server.stop() == Some(0), "the exchange does not stop well: {}", server.stderr());
    server.log_verify();
    drop(disk);
    caught("syncs do nothing (eatmydata)", without_syncs(file_system).await)?;
    caught("acknowledged on sled's own flush", sled_flush(file_system).await)?;
    caught("the old key is destroyed before the new file is durable", without_epoch_file(file_system).await)?;
    println!("{cuts} power cuts on {}, {epochs} changes of epoch: {}", file_system.name(), stories.summary());
    Ok(())
}

/// Load for `ms`, then a power cut and the disk again as the cut left it.
async fn tell_and_cut(
    stories: &mut Stories,
    server: &mut Server,
    disk: &mut CutDisk,
    ms: u64,
) -> anyhow::Result<()> {
    let (mut changed, mut cut) = (Ok(()), Ok(()));
    stories
        .tell(server, async |server| {
            changed = tokio::select! {
                () = pause(ms) => Ok(()),
                changed = rotation::change(server) => changed,
            };
            // Power goes first: what the process still answers rests on syncs that came back before.
            cut = disk.power_off();
            server.kill();
        })
        .await?;
    changed?;
    cut?;
    disk.power_on()
}

/// The same exchange, whose syncs do nothing.
async fn without_syncs(file_system: FileSystem) -> anyhow::Result<()> {
    let mut disk = CutDisk::new(file_system)?;
    let mut server = setup().at(&disk.folder().join("data")).prepare().await;
    let mut stories = Stories::default();
    server.set_env("LD_PRELOAD", Some(NO_SYNC));
    server.start();
    tell_and_cut(&mut stories, &mut server, &mut disk, CONTROL_MS).await?;
    anyhow::ensure!(stories.unchecked() >= CONTROL_LEAST, "too little was answered for the control");
    server.set_env("LD_PRELOAD", None);
    server.try_start().map_err(Violation)?;
    stories.check(&server).await
}

/// The same exchange, which destroys an epoch's key before the file of the next one is durable.
async fn without_epoch_file(file_system: FileSystem) -> anyhow::Result<()> {
    let mut disk = CutDisk::new(file_system)?;
    let mut server = setup().at(&disk.folder().join("data")).prepare().await;
    server.set_env("MIAOXIANG_FAILPOINT", Some(rotation::UNREPLACED));
    server.start();
    let gone = rotation::erased(&server).await?;
    rotation::change_once(&server).await?;
    let cut = disk.power_off();
    server.kill();
    cut?;
    disk.power_on()?;
    server.set_env("MIAOXIANG_FAILPOINT", None);
    server.try_start().map_err(Violation)?;
    rotation::stays_erased(&server, &gone).await
}

/// A program that acknowledges what it put into sled when sled's flush returns.
async fn sled_flush(file_system: FileSystem) -> anyhow::Result<()> {
    let mut disk = CutDisk::new(file_system)?;
    let folder = disk.folder().join("sled");
    let mut writer = Command::new(std::env::current_exe()?)
        .arg("sled-writer")
        .arg(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = writer.stdout.take().context("the writer's output")?;
    let reader = std::thread::spawn(move || {
        BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u64>().ok())
            .last()
    });
    pause(CONTROL_MS).await;
    let cut = disk.power_off();
    writer.kill()?;
    writer.wait()?;
    cut?;
    let acknowledged = reader.join().ok().flatten().context("the writer acknowledged nothing")?;
    anyhow::ensure!(acknowledged as usize >= CONTROL_LEAST, "too little was acknowledged for the control");
    disk.power_on()?;
    let found = crate::sled_writer::count(&folder);
    must(found > acknowledged, || {
        format!("{} records were acknowledged, {found} are there", acknowledged + 1)
    })
}
