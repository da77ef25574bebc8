//! How many threads a machine has use for.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;

/// Threads that a team should have on this machine: one for each core that this process may run on, and
/// no more than its control group grants. Two hardware threads of a core share what products wait for.
pub fn default_threads() -> NonZeroUsize {
    // It knows of affinity and of control groups, but not of cores.
    let granted = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let cores = n_cores(Path::new("/proc"), Path::new("/sys/devices/system/cpu"));
    cores.map_or(granted, |cores| cores.min(granted))
}

/// Cores among the processors this process may run on. `None` where the system does not say.
fn n_cores(proc: &Path, cpus: &Path) -> Option<NonZeroUsize> {
    let status = std::fs::read_to_string(proc.join("self/status")).ok()?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = BTreeSet::new();
    for cpu in parse_list(allowed)? {
        let topology = cpus.join(format!("cpu{cpu}/topology"));
        // The older kernels' name second.
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| std::fs::read_to_string(topology.join(name)).ok())?;
        // A core is known by its first processor, whether this process may run there or not.
        cores.insert(parse_list(&siblings)?.into_iter().min()?);
    }
    NonZeroUsize::new(cores.len())
}

/// The numbers of a list like `0-3,8`.
fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A machine of two cores with two hardware threads each, as files.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, allowed: &str) -> Self {
            let root = std::env::temp_dir().join(format!("ingle-{name}-{}", std::process::id()));
            std::fs::create_dir_all(root.join("proc/self")).unwrap();
            let status = format!("Name:\tx\nCpus_allowed_list:\t{allowed}\nThreads:\t1\n");
            std::fs::write(root.join("proc/self/status"), status).unwrap();
            for cpu in 0..4 {
                let topology = root.join(format!("cpu/cpu{cpu}/topology"));
                std::fs::create_dir_all(&topology).unwrap();
                let siblings = format!("{},{}\n", cpu % 2, cpu % 2 + 2);
                std::fs::write(topology.join("core_cpus_list"), siblings).unwrap();
            }
            Self(root)
        }

        fn n_cores(&self) -> Option<usize> {
            n_cores(&self.0.join("proc"), &self.0.join("cpu")).map(NonZeroUsize::get)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "files")]
    fn hardware_threads_of_a_core_count_once() {
        for (name, allowed, n_cores) in [
            ("all", "0-3", Some(2)),
            ("one", "2", Some(1)),
            ("both", "1,3", Some(1)),
            ("two", "0,3", Some(2)),
            ("none", "x", None),
            ("absent", "0-4", None),
        ] {
            assert_eq!(Machine::new(name, allowed).n_cores(), n_cores, "{allowed}");
        }
    }

    #[test]
    fn this_machine_has_at_least_one() {
        let granted = std::thread::available_parallelism().unwrap();
        assert!(default_threads() <= granted);
    }
}
