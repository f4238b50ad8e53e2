//! What processes and processors used, from /proc, and where they may run.

use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use verifier::command;

/// User and system time of a process with all its threads, ended ones too, seconds; `None` is this process.
///
/// # Errors
/// The process is gone.
pub fn cpu_seconds(process: Option<u32>) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(path(process, "stat"))?;
    let ticks = ticks(&stat).context("an unknown form of /proc/…/stat")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// What is looked at to tell whether processes rest: an exchange begins to put its house in order when it had nothing to do
/// for a second.
const REST: Duration = Duration::from_millis(1_250);
/// Nothing is said of a rest that does not take longer.
const SILENT: Duration = Duration::from_secs(10);
/// How long a server may take to rest after its start: an exchange that began without its restart image writes all of it.
const START_PATIENCE: Duration = Duration::from_secs(1_200);
/// A process that uses less of a processor rests.
const RESTING: f64 = 0.02;

/// Waits until processes rest; whether they did within `patience`.
///
/// # Errors
/// One is gone.
pub fn rest(processes: &[u32], patience: Duration) -> anyhow::Result<bool> {
    let used = || processes.iter().map(|process| cpu_seconds(Some(*process))).sum::<anyhow::Result<f64>>();
    let begun = Instant::now();
    let (mut since, mut before) = (begun, used()?);
    while begun.elapsed() < patience {
        std::thread::sleep(REST);
        let now = used()?;
        if now - before < RESTING * since.elapsed().as_secs_f64() {
            return Ok(true);
        }
        (since, before) = (Instant::now(), now);
    }
    Ok(false)
}

/// Waits until servers have done what their start and their population left to do, and says it if they do not end.
///
/// # Errors
/// One is gone.
pub fn rest_after_start(processes: &[u32]) -> anyhow::Result<()> {
    if rest(processes, SILENT)? {
        return Ok(());
    }
    command::note("waiting until the server has done what its start left to do");
    if !rest(processes, START_PATIENCE)? {
        command::note(format_args!("not at rest {} s after the start", START_PATIENCE.as_secs()));
    }
    Ok(())
}

/// Resident memory of a process, bytes; `None` is this process.
///
/// # Errors
/// The process is gone.
pub fn resident_bytes(process: Option<u32>) -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string(path(process, "statm"))?;
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).context("an unknown form of statm")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Processor time of the calling thread, seconds.
pub fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How long one processor was not idle since the machine started, seconds, whoever used it: interrupts and what a
/// hypervisor took count.
///
/// # Errors
/// There is no such processor.
pub fn core_busy_seconds(core: usize) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let ticks = busy_ticks(&stat, core).with_context(|| format!("no processor {core}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Lets the calling thread, and what it starts, run on one processor only.
///
/// # Errors
/// There is no such processor, or it may not be used.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Does something on one processor only, if it is named; what is started meanwhile stays there.
///
/// # Errors
/// Like [`pin`].
pub fn pinned<T>(core: Option<usize>, work: impl FnOnce() -> T) -> io::Result<T> {
    let Some(core) = core else { return Ok(work()) };
    let before = sched_getaffinity(None)?;
    pin(core)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

/// Starts a child that runs, with all its threads, on one processor only.
///
/// # Errors
/// Like [`pin`] and [`Command::spawn`].
pub fn spawn_on(command: &mut Command, core: Option<usize>) -> io::Result<Child> {
    // A child begins with what the thread that starts it may use.
    pinned(core, || command.spawn())?
}

fn path(process: Option<u32>, file: &str) -> String {
    match process {
        Some(process) => format!("/proc/{process}/{file}"),
        None => format!("/proc/self/{file}"),
    }
}

/// `utime` + `stime`: fields 14 and 15, counted behind the command's name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// All of a processor's line but `idle` and `iowait` (fields 4 and 5) and the guests' time, which is in the first two.
fn busy_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(fields.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4 | 8..)).map(|(_, ticks)| ticks).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        assert_eq!(ticks("7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14"), Some(42));
        assert_eq!(ticks("7 (a) S 1 2"), None);
        assert!(cpu_seconds(None).unwrap() >= 0.0);
        assert!(resident_bytes(None).unwrap() > 0);
        assert!(cpu_seconds(Some(u32::MAX)).is_err());
    }

    #[test]
    fn who_sleeps_rests_and_who_works_does_not() {
        let resting = |program: &str| {
            let mut child = Command::new("sh").args(["-c", program]).spawn().unwrap();
            let rests = rest(&[child.id()], REST);
            child.kill().unwrap();
            child.wait().unwrap();
            rests.unwrap()
        };
        assert!(resting("exec sleep 60"));
        assert!(!resting("while :; do :; done"));
        assert!(rest(&[u32::MAX], REST).is_err());
    }

    #[test]
    fn idle_and_guest_time_is_not_busy_time() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 100 200 8 16 32 400 800\ncpu1 5 0 0 1\n";
        assert_eq!(busy_ticks(stat, 0), Some(63));
        assert_eq!(busy_ticks(stat, 1), Some(5));
        assert_eq!(busy_ticks(stat, 2), None);
        assert!(core_busy_seconds(0).unwrap() > 0.0);
    }

    #[test]
    fn a_child_is_pinned_and_its_parent_is_not() {
        let before = sched_getaffinity(None).unwrap();
        let core = (0..CpuSet::MAX_CPU).find(|core| before.is_set(*core)).unwrap();
        let mut command = Command::new("cat");
        let child =
            spawn_on(command.arg("/proc/self/status").stdout(std::process::Stdio::piped()), Some(core));
        let output = child.unwrap().wait_with_output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{core}\n")), "{status}");
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        assert!(pin(CpuSet::MAX_CPU).is_err());
    }
}
