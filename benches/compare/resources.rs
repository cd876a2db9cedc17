//! What the kernel counts: CPU time and memory of other processes, and our own descriptors.
//! Reads /proc; changes nothing but this process's descriptor limit.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Result;

/// Sockets of the largest measurement, with room: 1,000 dashboards, or 1,000 idle agents.
const DESCRIPTORS: u64 = 2_048;

/// Raises our soft descriptor limit to the hard one; what we start inherits it.
///
/// # Errors
/// When the hard limit is below what the bench needs.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    match maximum {
        Some(most) if most < DESCRIPTORS => {
            Err(format!("the bench needs {DESCRIPTORS} descriptors, the hard limit is {most}")
                .into())
        }
        _ => Ok(()),
    }
}

/// CPU time, user and system, that all threads of `pids` had so far. Threads that ended are not
/// in it: measure where none ends.
pub(crate) fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let mut nanos = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            nanos += thread_nanos(&task?.path())?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// The first number of schedstat: time on a CPU, in nanoseconds. `utime + stime` of stat says
/// the same in ticks of 10 ms, too coarse for a second of measurement.
fn thread_nanos(task: &Path) -> Result<u64> {
    let text = match fs::read_to_string(task.join("schedstat")) {
        Ok(text) => text,
        // Gone between the listing and now: no time of a measured thread.
        Err(_) if !task.exists() => return Ok(0),
        Err(error) => return Err(format!("{}/schedstat: {error}", task.display()).into()),
    };
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    Ok(first.parse()?)
}

/// VmRSS of all of `pids` together, in bytes. Pages that they share count once for each.
pub(crate) fn resident_bytes(pids: &[u32]) -> Result<u64> {
    let mut kib = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        kib += number.ok_or("no VmRSS in /proc/PID/status")?.trim().parse::<u64>()?;
    }
    Ok(kib * 1_024)
}

/// `pid` and its children (nginx: the master and its workers).
pub(crate) fn family(pid: u32) -> Result<Vec<u32>> {
    let mut pids = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_ascii_whitespace() {
            pids.push(child.parse()?);
        }
    }
    Ok(pids)
}
