//! What the disk alone can do: the same bytes appended and synced, without an exchange around them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::drive::new_histogram;

/// Bytes of the file, preallocated with zeros like a segment of the journal; writing begins anew at its end.
const FILE_BYTES: u64 = 64 << 20;
const ZERO_BYTES: usize = 1 << 20;

/// A preallocated file; removed when dropped.
pub struct BareFile {
    file: File,
    path: PathBuf,
    offset: u64,
}

impl BareFile {
    /// Makes the file in `folder`, durable before it is used.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("bare-{}.tmp", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let zeros = vec![0; ZERO_BYTES];
        for _ in 0..FILE_BYTES / ZERO_BYTES as u64 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Self { file, path, offset: 0 })
    }

    /// One write after the last, and one `fdatasync`.
    ///
    /// # Errors
    /// The file system's, also for more bytes than the file has.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.offset + bytes.len() as u64 > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(bytes, self.offset)?;
        rustix::fs::fdatasync(&self.file)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for BareFile {
    fn drop(&mut self) {
        // Left behind it does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a bare run did.
pub struct Bare {
    /// Appends.
    pub appends: u64,
    /// How long they took in all.
    pub elapsed: Duration,
    /// Time of each append with its sync, µs.
    pub latency: Histogram<u64>,
}

/// Appends `frame_bytes` bytes again and again for `duration`: one after another, or `a_second` times a second.
///
/// # Errors
/// The file system's.
pub fn run(folder: &Path, frame_bytes: u64, a_second: Option<f64>, duration: Duration) -> io::Result<Bare> {
    let mut file = BareFile::create(folder)?;
    // Bytes that differ, as ciphertext does.
    let frame: Vec<u8> = (0..frame_bytes).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 7) as u8).collect();
    let mut bare = Bare { appends: 0, elapsed: Duration::ZERO, latency: new_histogram() };
    let started = Instant::now();
    while started.elapsed() < duration {
        if let Some(a_second) = a_second {
            let due = started + Duration::from_secs_f64(bare.appends as f64 / a_second);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let begun = Instant::now();
        file.append(&frame)?;
        bare.latency.saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        bare.appends += 1;
    }
    bare.elapsed = started.elapsed();
    Ok(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_counted_and_the_file_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let bare = run(folder.path(), 4_096, None, Duration::from_millis(20)).unwrap();
        assert!(bare.appends > 0);
        assert_eq!(bare.latency.len(), bare.appends);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
