//! Bytes: what this machine has free, and what a model asks of them.

use std::path::{Path, PathBuf};

use super::bytes::Bytes;

/// Share of the free memory that is left to everything else: one in so many.
const RESERVE_SHARE: u64 = 10;
/// Left to everything else at least. Units: bytes.
const RESERVE_LEAST_BYTES: u64 = 256 << 20;
/// Contexts the KV cache holds in full at once, where memory allows. Sequences share its blocks, so
/// many more of the usual length run side by side.
pub const CONTEXTS_WANTED: usize = 2;

/// What the machine can still give, as `/proc/meminfo` calls it.
const AVAILABLE: &str = "MemAvailable:";

/// What a model needs in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The weights.
    pub weights: Bytes,
    /// The blocks of the KV cache.
    pub kv: Bytes,
    /// Activations and logits of the largest step, and the vocabulary's texts.
    pub workspace: Bytes,
}

impl Needs {
    /// All of it.
    pub fn total(self) -> Bytes {
        self.weights + self.kv + self.workspace
    }
}

/// A number of KV blocks and what the model needs with so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Blocks of the KV cache.
    pub n_blocks: usize,
    /// What the model then needs.
    pub needs: Needs,
}

/// Blocks for one context (the least a model runs with) and for `n_contexts`.
///
/// Units: `n_ctx` tokens of one sequence at most; `block_len` tokens of one block.
pub fn block_counts(n_ctx: u32, block_len: usize, n_contexts: usize) -> (usize, usize) {
    let least = usize::try_from(n_ctx)
        .unwrap_or(usize::MAX)
        .div_ceil(block_len);
    (least, least.saturating_mul(n_contexts))
}

/// The most blocks, from `least` to `wanted`, that fit in what was `granted`; `least` at worst.
pub fn blocks_within(least: Size, wanted: Size, granted: Bytes) -> usize {
    let n_more = wanted.n_blocks.saturating_sub(least.n_blocks);
    let more = wanted.needs.total().saturating_sub(least.needs.total());
    let spare = granted.saturating_sub(least.needs.total());
    let fitting = |more_bytes: u64, spare_bytes: u64| {
        if spare_bytes >= more_bytes {
            return n_more;
        }
        let n_fitting = u128::from(spare_bytes) * n_more as u128 / u128::from(more_bytes);
        usize::try_from(n_fitting).unwrap_or(n_more).min(n_more)
    };
    let n_fitting = fitting(more.host, spare.host).min(fitting(more.device, spare.device));
    least.n_blocks + n_fitting
}

/// What all models together may hold unless the configuration says otherwise: what is free now, less
/// a reserve for everything else.
pub fn default_budget(available_bytes: u64) -> u64 {
    let reserve = (available_bytes / RESERVE_SHARE).max(RESERVE_LEAST_BYTES);
    available_bytes.saturating_sub(reserve)
}

/// Bytes this process can still take: the machine's `MemAvailable`, or less where a control group
/// (v2) above it allows less. `None` where the system does not say.
pub fn available_bytes() -> Option<u64> {
    available_under(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// Memory of the machine, or what the control groups (v2) above this process allow it where that is less.
/// `None` where the system does not say.
pub fn total_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = meminfo_bytes(&meminfo, "MemTotal:")?;
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own_cgroup(&cgroup).unwrap_or_default();
    let limits = own.ancestors().filter_map(|group| {
        let max = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        std::fs::read_to_string(max).ok()?.trim().parse().ok()
    });
    Some(limits.fold(machine, u64::min))
}

fn available_under(proc: &Path, cgroups: &Path) -> Option<u64> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let machine = meminfo_bytes(&read(proc.join("meminfo"))?, AVAILABLE)?;
    let Some(own) = read(proc.join("self/cgroup"))
        .as_deref()
        .and_then(own_cgroup)
    else {
        return Some(machine);
    };
    // Every group from the process's own up to the root may set a limit.
    let mut least = machine;
    let mut relative: &Path = &own;
    loop {
        let group = cgroups.join(relative);
        let free = read(group.join("memory.max")).and_then(|max| {
            let current = read(group.join("memory.current"))?;
            cgroup_free(
                &max,
                &current,
                &read(group.join("memory.stat")).unwrap_or_default(),
            )
        });
        least = least.min(free.unwrap_or(u64::MAX));
        match relative.parent() {
            Some(parent) => relative = parent,
            None => return Some(least),
        }
    }
}

/// A line of `/proc/meminfo`, which counts in kibibytes.
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The v2 group of `/proc/self/cgroup` (`0::/a/b`), relative to the mount.
fn own_cgroup(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside its own namespace a process may see `/../..`; what that means cannot be read here.
    Some(if path.contains("..") {
        PathBuf::new()
    } else {
        PathBuf::from(path.trim_end())
    })
}

/// What a group may still take. Pages of files nobody uses are given back on demand, so they count
/// as free, as they do in `MemAvailable`. `None` without a limit.
fn cgroup_free(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?; // "max" is no limit
    let current: u64 = current.trim().parse().ok()?;
    let file_pages = |name: &str| {
        stat.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let reclaimable = file_pages("inactive_file ").unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn mem_available_is_read_in_kibibytes() {
        let meminfo = "MemTotal:       24609684 kB\nMemAvailable:   23885836 kB\nBuffers: 1 kB\n";
        let available = |meminfo| meminfo_bytes(meminfo, AVAILABLE);
        assert_eq!(available(meminfo), Some(23_885_836 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn a_group_without_a_limit_limits_nothing() {
        assert_eq!(cgroup_free("max\n", "1000\n", ""), None);
        assert_eq!(cgroup_free("1000\n", "400\n", "anon 1\n"), Some(600));
        assert_eq!(
            cgroup_free("1000\n", "900\n", "inactive_file 300\n"),
            Some(400)
        );
        assert_eq!(cgroup_free("1000\n", "1200\n", ""), Some(0));
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let (proc, cgroups) = (root.path().join("proc"), root.path().join("cgroup"));
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::create_dir_all(cgroups.join("pod/app")).unwrap();
        std::fs::write(proc.join("meminfo"), "MemAvailable: 8388608 kB\n").unwrap();
        assert_eq!(available_under(&proc, &cgroups), Some(8 * GIB), "no groups");

        std::fs::write(proc.join("self/cgroup"), "0::/pod/app\n").unwrap();
        let limit = |group: &str, max: &str| {
            std::fs::write(cgroups.join(group).join("memory.max"), max).unwrap();
            std::fs::write(cgroups.join(group).join("memory.current"), "0\n").unwrap();
        };
        limit("pod/app", "max\n");
        limit("pod", "2147483648\n");
        assert_eq!(
            available_under(&proc, &cgroups),
            Some(2 * GIB),
            "the parent's limit"
        );
        limit("pod/app", "1073741824\n");
        assert_eq!(available_under(&proc, &cgroups), Some(GIB), "its own limit");
        limit("", "1048576\n");
        assert_eq!(
            available_under(&proc, &cgroups),
            Some(1 << 20),
            "the mount's own"
        );
    }

    #[test]
    fn the_budget_leaves_a_reserve() {
        assert_eq!(default_budget(20 * GIB), 18 * GIB);
        assert_eq!(default_budget(GIB), GIB - RESERVE_LEAST_BYTES);
        assert_eq!(default_budget(1), 0);
    }

    #[test]
    fn blocks_follow_the_grant_between_least_and_wanted() {
        let size = |n_blocks: usize| Size {
            n_blocks,
            needs: Needs {
                weights: Bytes::on_host(1000),
                kv: Bytes {
                    host: n_blocks as u64 * 100,
                    device: n_blocks as u64,
                },
                workspace: Bytes::on_host(50),
            },
        };
        let (least, wanted) = block_counts(100, 32, CONTEXTS_WANTED);
        assert_eq!((least, wanted), (4, 8));
        let granted =
            |host, device| blocks_within(size(least), size(wanted), Bytes { host, device });
        let within = |host| granted(host, u64::MAX);
        assert_eq!(within(0), 4);
        // The scarcer memory counts.
        assert_eq!(granted(u64::MAX, 5), 5);
        assert_eq!(granted(1050 + 599, 6), 5);
        assert_eq!(within(1050 + 400), 4);
        assert_eq!(within(1050 + 599), 5);
        assert_eq!(within(1050 + 700), 7);
        assert_eq!(within(u64::MAX), 8);
    }
}
