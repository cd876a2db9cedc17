//! CPU and memory of this machine, or of the container that we run in, as percentages. Keeps only
//! the counters of the last CPU reading.

use std::path::Path;
use std::time::{Duration, Instant};

use sysinfo::{MemoryRefreshKind, System};

use super::AgentError;
use super::cgroup::{Cgroup, CpuLimit};
use crate::wire::MIB;

/// Between creating a [`Machine`] and its first reading, so that the CPU figure is not the mean
/// since boot. The margin is for a timer that fires slightly early.
pub(super) const FIRST_WINDOW: Duration =
    sysinfo::MINIMUM_CPU_UPDATE_INTERVAL.saturating_add(Duration::from_millis(50));

/// In percent: finite, 0..=100, with two decimals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// Used of all CPU time since the last reading.
    pub(super) cpu_percent: f64,
    /// Used (total less available) of the total.
    pub(super) memory_percent: f64,
}

pub(super) struct Machine {
    system: System,
    cgroup: Option<Cgroup>,
    cpus: f64,
    /// The last reading under a CPU limit.
    last: Option<(Instant, CpuLimit)>,
}

impl Machine {
    /// Reads the CPU counters that the first reading is compared with. Fails on systems that
    /// sysinfo does not support.
    pub(super) fn new(now: Instant) -> Result<Self, AgentError> {
        let system = System::new().map_err(|error| AgentError::Machine(error.to_string()))?;
        let cgroup = Cgroup::find(Path::new("/proc"), Path::new("/sys/fs/cgroup"));
        Ok(Self::with(system, cgroup, now))
    }

    fn with(mut system: System, cgroup: Option<Cgroup>, now: Instant) -> Self {
        system.refresh_cpu_usage();
        let cpus = system.cpus().len().max(1) as f64;
        let mut machine = Self { system, cgroup, cpus, last: None };
        machine.read(now);
        machine
    }

    /// What the percentages are of, for the log.
    pub(super) fn describe(&self) -> String {
        let total = self.system.total_memory();
        let cgroup = self.cgroup.as_ref();
        let cpu = cgroup.and_then(|cgroup| cgroup.cpu(self.cpus));
        let memory = cgroup.and_then(|cgroup| cgroup.memory(total));
        let cpu = cpu.map(|limit| format!("{} CPUs", limit.cpus));
        let memory = memory.map(|limit| format!("{} MiB", limit.bytes / MIB as u64));
        let limits: Vec<String> = [cpu, memory].into_iter().flatten().collect();
        if limits.is_empty() {
            return "this machine".to_owned();
        }
        format!("this control group ({})", limits.join(", "))
    }

    /// Used of the CPU time that the control group's limit has allowed since the last reading.
    fn limited_cpu(&mut self, now: Instant) -> Option<f64> {
        let limit = self.cgroup.as_ref()?.cpu(self.cpus)?;
        let (then, before) = self.last.replace((now, limit)).unwrap_or((now, limit));
        let allowed = limit.cpus * now.saturating_duration_since(then).as_secs_f64();
        let used = limit.used_seconds - before.used_seconds;
        Some(if allowed > 0.0 { used / allowed * 100.0 } else { 0.0 })
    }

    pub(super) fn read(&mut self, now: Instant) -> Reading {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let total = self.system.total_memory();
        let whole_cpu = f64::from(self.system.global_cpu_usage());
        let cpu = self.limited_cpu(now).unwrap_or(whole_cpu);
        let memory = match self.cgroup.as_ref().and_then(|cgroup| cgroup.memory(total)) {
            Some(limit) => share(limit.used_bytes, limit.bytes),
            None => share(total.saturating_sub(self.system.available_memory()), total),
        };
        Reading { cpu_percent: percent(cpu), memory_percent: memory }
    }
}

/// 0 if `whole` is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { percent(part as f64 / whole as f64 * 100.0) }
}

/// Limits `value` to 0..=100, with two decimals; NaN is 0.
fn percent(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { (value.clamp(0.0, 100.0) * 100.0).round() / 100.0 }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn percentages_stay_in_range_for_any_input() {
        for (value, expected) in [
            (f64::NAN, 0.0),
            (f64::INFINITY, 100.0),
            (f64::NEG_INFINITY, 0.0),
            (-0.1, 0.0),
            (100.01, 100.0),
            (45.456_7, 45.46),
        ] {
            assert_eq!(percent(value), expected, "{value}");
        }
        assert_eq!(share(1, 0), 0.0);
        assert_eq!(share(1, 3), 33.33);
        assert_eq!(share(3, 1), 100.0);
    }

    #[test]
    fn this_machine_reads_within_range_at_once() {
        let clock = Clock::start();
        let mut machine = Machine::new(clock.now()).unwrap();
        for _ in 0..3 {
            let reading = machine.read(clock.now());
            assert!((0.0..=100.0).contains(&reading.cpu_percent), "{reading:?}");
            // At least this test uses memory.
            assert!(reading.memory_percent > 0.0 && reading.memory_percent <= 100.0, "{reading:?}");
        }
    }

    /// With a limit of a quarter CPU, half a second in four is 50 %.
    #[test]
    fn percentages_are_of_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir(dir.path().join("self")).unwrap();
        put("self/cgroup", "0::/\n");
        put("cgroup.controllers", "cpu memory\n");
        put("cpu.max", "25000 100000");
        put("cpu.stat", "usage_usec 5000000\n");
        put("memory.max", "4096");
        put("memory.current", "1024");
        let cgroup = Cgroup::find(dir.path(), dir.path());
        let start = Clock::start().now();
        let mut machine = Machine::with(System::new().unwrap(), cgroup, start);
        assert_eq!(machine.describe(), "this control group (0.25 CPUs, 0 MiB)");

        put("cpu.stat", "usage_usec 5500000\n");
        let reading = machine.read(start + Duration::from_secs(4));
        assert_eq!(reading, Reading { cpu_percent: 50.0, memory_percent: 25.0 });
        // Neither no elapsed time nor a counter that went back gives an invalid number.
        assert_eq!(machine.read(start + Duration::from_secs(4)).cpu_percent, 0.0);
        put("cpu.stat", "usage_usec 1\n");
        assert_eq!(machine.read(start + Duration::from_secs(5)).cpu_percent, 0.0);
    }
}
