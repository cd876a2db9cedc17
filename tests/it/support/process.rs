//! A process as `/proc` shows it.

use std::fs;

/// Resident memory in KiB (`VmRSS`).
pub(crate) fn resident_kib(pid: u32) -> u64 {
    status_field(pid, "VmRSS:")
}

pub(crate) fn threads(pid: u32) -> u64 {
    status_field(pid, "Threads:")
}

pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// User and system time so far, in clock ticks (hundredths of a second on Linux).
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may contain spaces and brackets, so count after it: state is field 3, utime 14 and
    // stime 15 (proc_pid_stat(5)).
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// The names of all threads, in no order.
pub(crate) fn thread_names(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// Its children, in no order.
pub(crate) fn child_processes(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&child| parent_and_state(child).is_some_and(|(parent, _)| parent == pid)).collect()
}

/// Its state, such as `R`, `S`, `T` (stopped) or `Z` (zombie); `None` if there is no such process.
pub(crate) fn state(pid: u32) -> Option<String> {
    parent_and_state(pid).map(|(_, state)| state)
}

fn parent_and_state(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?.to_owned();
    Some((words.next()?.parse().ok()?, state))
}

/// A mask; the lowest bit is signal 1.
pub(crate) fn ignored_signals(pid: u32) -> u64 {
    u64::from_str_radix(&status_text(pid, "SigIgn:"), 16).unwrap()
}

fn status_field(pid: u32, name: &str) -> u64 {
    status_text(pid, name).parse().unwrap()
}

fn status_text(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}
