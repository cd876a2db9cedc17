//! What the operating system says of this machine, as percentages that are always true to
//! their range. Reads; keeps only what the next CPU reading is measured against.

use std::time::Duration;

use sysinfo::{MemoryRefreshKind, System};

use super::AgentError;

/// Below this the system's CPU counters are not read anew.
pub(super) const SHORTEST_WINDOW: Duration = sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;

/// CPU and memory in percent, finite, 0..=100, with two decimals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// The share of all CPU time that was used since the reading before.
    pub(super) cpu_percent: f64,
    /// Used memory (total less available) of the total.
    pub(super) memory_percent: f64,
}

/// Where readings come from.
pub(super) trait Machine {
    /// CPU since the last call (since boot, on the first) and memory now.
    fn read(&mut self) -> Reading;
}

/// The whole machine, as sysinfo has it.
pub(super) struct WholeMachine {
    system: System,
}

impl WholeMachine {
    /// Takes the reading that the first real one is measured against.
    ///
    /// # Errors
    /// [`AgentError::Machine`] on a system that sysinfo does not know.
    pub(super) fn new() -> Result<Self, AgentError> {
        let system = System::new().map_err(|error| AgentError::Machine(error.to_string()))?;
        let mut machine = Self { system };
        machine.read();
        Ok(machine)
    }
}

impl Machine for WholeMachine {
    fn read(&mut self) -> Reading {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let total = self.system.total_memory();
        let used = total.saturating_sub(self.system.available_memory());
        Reading {
            cpu_percent: percent(f64::from(self.system.global_cpu_usage())),
            memory_percent: share(used, total),
        }
    }
}

/// `part` of `whole` in percent; nothing of nothing is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { percent(part as f64 / whole as f64 * 100.0) }
}

/// `value` brought into range, with two decimals; what is no number is 0.
fn percent(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { (value.clamp(0.0, 100.0) * 100.0).round() / 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_stay_in_range_whatever_comes_in() {
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
        let mut machine = WholeMachine::new().unwrap();
        for _ in 0..3 {
            let reading = machine.read();
            assert!((0.0..=100.0).contains(&reading.cpu_percent), "{reading:?}");
            // Something runs: at the least, this test.
            assert!(reading.memory_percent > 0.0 && reading.memory_percent <= 100.0, "{reading:?}");
        }
    }
}
