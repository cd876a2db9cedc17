//! CPU and memory limits of the control group that we run in, and what has been used of them:
//! cgroup v2 (Linux kernel, Documentation/admin-guide/cgroup-v2.rst). A limit applies to everything
//! below it, so the lowest one from our own group up to the root counts. sysinfo's `cgroup_limits`
//! has no CPU limit and takes page cache for used memory.

use std::fs;
use std::path::{Path, PathBuf};

/// The directories of our control group and of those above it, ours first.
#[derive(Debug)]
pub(super) struct Cgroup(Vec<PathBuf>);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CpuLimit {
    /// May be a fraction.
    pub(super) cpus: f64,
    /// CPU time since the group was created.
    pub(super) used_seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    pub(super) bytes: u64,
    /// Without the page cache that the kernel would reclaim first.
    pub(super) used_bytes: u64,
}

impl Cgroup {
    /// `proc` is usually `/proc` and `root` `/sys/fs/cgroup`; `None` without cgroup v2.
    pub(super) fn find(proc: &Path, root: &Path) -> Option<Self> {
        fs::metadata(root.join("cgroup.controllers")).ok()?;
        let groups = fs::read_to_string(proc.join("self/cgroup")).ok()?;
        // cgroups(7): the line of version 2 has the number 0 and no controllers.
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let own = root.join(path);
        // `..` leads out of our cgroup namespace, of which we see only the root. In a container
        // without a namespace of its own the path may not exist.
        let is_visible = own.is_dir() && !path.split('/').any(|part| part == "..");
        let own = if is_visible { &own } else { root };
        let levels = own.ancestors().take_while(|level| level.starts_with(root));
        Some(Self(levels.map(Path::to_owned).collect()))
    }

    /// The lowest CPU limit below `machine_cpus`.
    pub(super) fn cpu(&self, machine_cpus: f64) -> Option<CpuLimit> {
        let limits = self.0.iter().flat_map(|level| {
            [quota(level), pinned(level)].into_iter().flatten().map(move |cpus| (level, cpus))
        });
        let (level, cpus) = limits
            .filter(|(_, cpus)| *cpus < machine_cpus)
            .min_by(|(_, left), (_, right)| left.total_cmp(right))?;
        let used_seconds = field(&level.join("cpu.stat"), "usage_usec")? as f64 / 1e6;
        Some(CpuLimit { cpus, used_seconds })
    }

    /// The lowest memory limit below `machine_bytes`.
    pub(super) fn memory(&self, machine_bytes: u64) -> Option<MemoryLimit> {
        let limit = |level: &PathBuf| number(&level.join("memory.max"));
        let limits = self.0.iter().filter_map(|level| Some((level, limit(level)?)));
        let lowest = limits.min_by_key(|(_, bytes)| *bytes);
        let (level, bytes) = lowest.filter(|(_, bytes)| *bytes < machine_bytes)?;
        let current = number(&level.join("memory.current"))?;
        let cache = field(&level.join("memory.stat"), "inactive_file").unwrap_or(0);
        Some(MemoryLimit { bytes, used_bytes: current.saturating_sub(cache) })
    }
}

/// `cpu.max`: quota and period in microseconds; `max` is no limit.
fn quota(level: &Path) -> Option<f64> {
    let text = fs::read_to_string(level.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// `cpuset.cpus.effective`: the CPUs that the group may run on, such as `0-3,7`.
fn pinned(level: &Path) -> Option<f64> {
    let text = fs::read_to_string(level.join("cpuset.cpus.effective")).ok()?;
    let counts = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (f64, f64) = (first.parse().ok()?, last.parse().ok()?);
        Some(last - first + 1.0)
    });
    counts.sum()
}

/// The number after `name` in a file of lines `name number`.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A tree as the kernel shows it: `proc/self/cgroup` with `groups`, and files below `cgroup`.
    fn tree(groups: &str, files: &[(&str, &str)]) -> (TempDir, Option<Cgroup>) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(dir.path().join("proc/self/cgroup"), groups);
        for (path, text) in files {
            write(dir.path().join("cgroup").join(path), text);
        }
        let cgroup = Cgroup::find(&dir.path().join("proc"), &dir.path().join("cgroup"));
        (dir, cgroup)
    }

    const V2: (&str, &str) = ("cgroup.controllers", "cpuset cpu memory\n");

    #[test]
    fn a_container_sees_its_own_limits_at_the_root() {
        let (_dir, cgroup) = tree(
            "0::/\n",
            &[
                V2,
                ("cpu.max", "150000 100000\n"),
                ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
                ("memory.max", "1000\n"),
                ("memory.current", "700\n"),
                ("memory.stat", "anon 1\ninactive_file 200\nactive_file 3\n"),
            ],
        );
        let cgroup = cgroup.unwrap();
        assert_eq!(cgroup.cpu(8.0), Some(CpuLimit { cpus: 1.5, used_seconds: 2.5 }));
        assert_eq!(cgroup.memory(1 << 30), Some(MemoryLimit { bytes: 1000, used_bytes: 500 }));
        assert_eq!(cgroup.cpu(1.5), None, "no less than the machine has");
        assert_eq!(cgroup.memory(1000), None);
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts_with_its_own_use() {
        let (_dir, cgroup) = tree(
            "1:cpu:/x\n0::/slice/unit\n",
            &[
                V2,
                ("slice/cpu.max", "50000 100000"),
                ("slice/cpu.stat", "usage_usec 9000000"),
                ("slice/memory.max", "max"),
                ("slice/unit/cpu.max", "max 100000"),
                ("slice/unit/cpu.stat", "usage_usec 1"),
                ("slice/unit/cpuset.cpus.effective", "0-1,5\n"),
                ("slice/unit/memory.max", "300"),
                ("slice/unit/memory.current", "100"),
            ],
        );
        let cgroup = cgroup.unwrap();
        assert_eq!(cgroup.cpu(8.0), Some(CpuLimit { cpus: 0.5, used_seconds: 9.0 }));
        assert_eq!(cgroup.memory(1000), Some(MemoryLimit { bytes: 300, used_bytes: 100 }));
    }

    #[test]
    fn a_cpuset_is_a_limit() {
        let (_dir, cgroup) = tree(
            "0::/a\n",
            &[
                V2,
                ("a/cpu.max", "max 100000"),
                ("a/cpu.stat", "usage_usec 1000000"),
                ("a/cpuset.cpus.effective", "2-3"),
            ],
        );
        assert_eq!(cgroup.unwrap().cpu(4.0), Some(CpuLimit { cpus: 2.0, used_seconds: 1.0 }));
    }

    #[test]
    fn without_version_2_or_limits_there_is_none() {
        assert!(tree("0::/\n", &[("cpu.max", "1 2")]).1.is_none(), "no cgroup.controllers");
        assert!(tree("4:memory:/x\n", &[V2]).1.is_none(), "version 1 alone");
        let (_dir, cgroup) =
            tree("0::/gone/../x\n", &[V2, ("cpu.max", "rubbish"), ("memory.max", "max")]);
        let cgroup = cgroup.unwrap();
        assert_eq!((cgroup.cpu(8.0), cgroup.memory(u64::MAX)), (None, None));
    }
}
