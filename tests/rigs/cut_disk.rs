//! A disk whose power can be cut: an image behind nbdkit, which keeps what was not flushed in its own memory and cache
//! file, served as a file by nbdfuse, as a block device by the loop driver, and mounted.
//!
//! Dropped, it leaves no mount, no loop device and no process behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::Lacking;

/// Size of the disk. Sparse: only what was written takes room.
const DISK_BYTES: u64 = 2 << 30;
/// Programs that it takes.
const PROGRAMS: [&str; 7] = ["nbdkit", "nbdfuse", "fusermount3", "losetup", "mount", "umount", "eatmydata"];
/// Longest wait for a device or a process; only a hang reaches it.
const HANG: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What the disk is formatted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// Its name, as `mount` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn format(self, image: &Path) -> anyhow::Result<()> {
        let mut command = match self {
            Self::Ext4 => {
                let mut command = Command::new("mkfs.ext4");
                command.args(["-q", "-F"]);
                command
            }
            Self::Xfs => {
                let mut command = Command::new("mkfs.xfs");
                command.args(["-q", "-f"]);
                command
            }
        };
        run(command.arg(image))
    }
}

/// What is to be undone when the power goes, in the order in which it was done.
#[derive(Default)]
struct Powered {
    nbdkit: Option<Child>,
    nbdfuse: Option<Child>,
    fuse: Option<PathBuf>,
    device: Option<String>,
    mounted: Option<PathBuf>,
}

impl Powered {
    /// Cuts the power and takes everything down; whatever fails, the rest is taken down all the same.
    fn off(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        // First the process that holds the unflushed writes, before anything can flush them.
        for child in [&mut self.nbdkit, &mut self.nbdfuse].into_iter().flatten() {
            let _ = child.kill();
        }
        if let Some(mounted) = &self.mounted {
            outcome = outcome.and(run(Command::new("umount").arg("-l").arg(mounted)));
        }
        if let Some(device) = &self.device {
            outcome = outcome.and(run(Command::new("losetup").args(["-d", device])));
        }
        if let Some(fuse) = &self.fuse {
            outcome = outcome.and(run(Command::new("fusermount3").args(["-u", "-z"]).arg(fuse)));
        }
        for child in [&mut self.nbdkit, &mut self.nbdfuse].into_iter().flatten() {
            child.wait()?;
        }
        outcome
    }
}

/// The disk.
pub(crate) struct CutDisk {
    powered: Option<Powered>,
    folder: TempDir,
    file_system: FileSystem,
}

impl Drop for CutDisk {
    fn drop(&mut self) {
        if let Some(powered) = self.powered.take()
            && let Err(error) = powered.off()
        {
            eprintln!("error: the disk is not taken down: {error:#}");
        }
    }
}

impl CutDisk {
    /// Makes, formats and mounts one.
    ///
    /// # Errors
    /// [`Lacking`] on a machine that cannot.
    pub(crate) fn new(file_system: FileSystem) -> anyhow::Result<Self> {
        lacking(file_system).map_or(Ok(()), |what| Err(Lacking(what)))?;
        let mut disk = Self { powered: None, folder: TempDir::new()?, file_system };
        for name in ["fuse", "mounted"] {
            fs::create_dir(disk.at(name))?;
        }
        fs::File::create(disk.at("image"))?.set_len(DISK_BYTES)?;
        file_system.format(&disk.at("image"))?;
        disk.power_on()?;
        Ok(disk)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> PathBuf {
        self.at("mounted")
    }

    /// Cuts the power: every write that was not flushed is gone.
    pub(crate) fn power_off(&mut self) -> anyhow::Result<()> {
        self.powered.take().context("the disk has no power")?.off()
    }

    /// Gives it power again and mounts it; the file system recovers by its own journal.
    pub(crate) fn power_on(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.powered.is_none(), "the disk has power");
        let [socket, fuse, mounted] = ["socket", "fuse", "mounted"].map(|name| self.at(name));
        let image = self.at("image");
        // What is begun stands in the disk at once: a failure half-way is taken down by the drop.
        let now = self.powered.insert(Powered::default());
        // The socket of a process that was killed stays.
        let _ = fs::remove_file(&socket);
        let nbdkit = Command::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--unix"])
            .arg(&socket)
            .args(["--filter=cache", "file"])
            .arg(image)
            .arg("cache=writeback")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nbdkit")?;
        now.nbdkit = Some(nbdkit);
        wait_for("nbdkit's socket", || Ok(socket.exists()))?;
        let file = fuse.join("disk");
        now.fuse = Some(fuse);
        let nbdfuse = Command::new("nbdfuse")
            .arg(&file)
            .arg("--unix")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nbdfuse")?;
        now.nbdfuse = Some(nbdfuse);
        wait_for("nbdfuse's file", || Ok(fs::metadata(&file).is_ok_and(|file| file.len() == DISK_BYTES)))?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output()?;
        if !output.status.success() {
            bail!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        now.device = Some(device.clone());
        run(Command::new("mount").args(["-t", self.file_system.name(), &device]).arg(&mounted))?;
        now.mounted = Some(mounted);
        Ok(())
    }
}

/// What this machine lacks; `None` when it has everything.
fn lacking(file_system: FileSystem) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, to mount a file system".to_owned());
    }
    let mkfs = format!("mkfs.{}", file_system.name());
    let missing = PROGRAMS.into_iter().chain([mkfs.as_str()]).find(|name| !crate::program(name));
    if let Some(name) = missing {
        return Some(format!("no {name}"));
    }
    if let Some(device) =
        ["/dev/fuse", "/dev/loop-control"].into_iter().find(|device| !Path::new(device).exists())
    {
        return Some(format!("no {device}"));
    }
    // Where it is a module that nobody has loaded yet; the next line tells whether it is there now.
    let _ = Command::new("modprobe").arg("--quiet").arg(file_system.name()).output();
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known.split_whitespace().any(|name| name == file_system.name());
    (!known).then(|| format!("the kernel has no {}", file_system.name()))
}

fn wait_for(what: &str, mut look: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !look()? {
        anyhow::ensure!(begun.elapsed() < HANG, "hung: {what}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
