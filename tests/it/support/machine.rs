//! CPU and memory of this machine as `/proc` shows them.

use std::fs;

/// CPU time since boot, in ticks (proc_stat(5)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTimes {
    busy: u64,
    stolen: u64,
    idle: u64,
}

impl CpuTimes {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap();
        let line = text.lines().next().unwrap().strip_prefix("cpu ").unwrap();
        let times: Vec<u64> = line.split_whitespace().map(|ticks| ticks.parse().unwrap()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal] = times[..8] else {
            panic!("{line}")
        };
        Self { busy: user + nice + system + irq + softirq, stolen: steal, idle: idle + iowait }
    }

    /// The lowest and highest correct percentage since `before`: stolen time may count as used, as
    /// idle, or not at all.
    pub(crate) fn percent_since(self, before: Self) -> (f64, f64) {
        let busy = self.busy.saturating_sub(before.busy) as f64;
        let stolen = self.stolen.saturating_sub(before.stolen) as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        let shares = [
            busy / (busy + stolen + idle),
            (busy + stolen) / (busy + stolen + idle),
            busy / (busy + idle),
        ];
        let percent = shares.map(|share| share * 100.0);
        (percent.into_iter().fold(100.0, f64::min), percent.into_iter().fold(0.0, f64::max))
    }
}

/// Used memory (total less available) in percent.
pub(crate) fn memory_percent() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kib = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (1.0 - kib("MemAvailable:") / kib("MemTotal:")) * 100.0
}
