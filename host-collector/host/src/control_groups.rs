//! The names of this host's control groups: which group a thread is in, and which path a group's number has.
//!
//! In cgroup v2 a thread is in exactly one group, and the number of a group (`kernfs_node.id`, since 5.5 the
//! inode number of its directory: fs/kernfs/dir.c, `kernfs_new_node`, and include/linux/kernfs.h,
//! `kernfs_id_ino`) is what BPF and perf call it by. Where v1 is mounted beside it (systemd's hybrid
//! hierarchy), v2 is still the one that systemd names its units in. Where only v1 is, a thread is in a group
//! of each hierarchy, and `/proc/PID/cgroup` is all that tells them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use vslice_core::text::harmless;
use vslice_core::units::Tid;

/// Groups that are listed at most.
pub const GROUPS_MAX: usize = 1 << 14;

/// `PROC_CGROUP_INIT_INO` in include/linux/proc_ns.h.
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// Where the control groups of this host have their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupNames {
    /// Where cgroup v2 is mounted; `None` if only v1 is.
    unified: Option<PathBuf>,
    /// Whether perf tells of groups that are made, by their numbers in v2.
    are_births_told: bool,
}

impl GroupNames {
    /// Those of this host.
    ///
    /// # Errors
    /// Why this process cannot tell them, as a sentence without its full stop.
    pub fn of_host() -> Result<GroupNames, String> {
        // From within another namespace some groups have other paths, and some have none.
        let namespace = fs::read_link("/proc/self/ns/cgroup");
        if namespace.is_ok_and(|link| link.as_os_str() != INITIAL_NAMESPACE) {
            return Err(
                "vslice runs in a cgroup namespace, which hides the host's control groups".into()
            );
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("/proc/self/mountinfo cannot be read: {error}"))?;
        let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let names = GroupNames::parse(&mounts, &controllers);
        names.ok_or_else(|| "no control groups are mounted on this host".into())
    }

    /// From `/proc/PID/mountinfo` and `/proc/cgroups`; `None` if neither version is mounted.
    fn parse(mounts: &str, controllers: &str) -> Option<GroupNames> {
        let mut unified = None;
        let mut is_any = false;
        for line in mounts.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let mut place = place.split(' ').skip(3);
            let (Some(root), Some(mount)) = (place.next(), place.next()) else { continue };
            let version = kind.split(' ').next().unwrap_or_default();
            is_any |= matches!(version, "cgroup" | "cgroup2");
            // A part that is mounted elsewhere has not all groups.
            if version == "cgroup2" && root == "/" && unified.is_none() {
                unified = Some(PathBuf::from(mount));
            }
        }
        // perf numbers the groups of the hierarchy that its controller is in (kernel/events/core.c,
        // `perf_event_cgroup`); in v2 it is if it is not mounted in v1.
        let perf = controllers.lines().find_map(|line| line.strip_prefix("perf_event\t"));
        let are_births_told = unified.is_some() && perf.is_some_and(|rest| rest.starts_with("0\t"));
        is_any.then_some(GroupNames { unified, are_births_told })
    }

    /// Whether groups have numbers by which they can be told: those of cgroup v2.
    #[must_use]
    pub fn have_numbers(&self) -> bool {
        self.unified.is_some()
    }

    /// Whether perf tells of each group that is made.
    #[must_use]
    pub fn are_births_told(&self) -> bool {
        self.are_births_told
    }

    /// The same where the kernel's perf knows of no groups.
    #[must_use]
    pub fn without_births(self) -> GroupNames {
        GroupNames { are_births_told: false, ..self }
    }

    /// The group of a thread, as a path below the root of its hierarchy; `None` if it cannot be seen.
    #[must_use]
    pub fn of_thread(&self, tid: Tid) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{tid}/cgroup")).ok()?;
        path_in(&text, self.unified.is_some()).map(harmless)
    }

    /// The paths of the groups that there are now, by their numbers; none without cgroup v2. A host that has
    /// more than some thousand has the others left out.
    #[must_use]
    pub fn by_number(&self) -> HashMap<u64, String> {
        self.unified.as_deref().map_or_else(HashMap::new, |mount| listed(mount, GROUPS_MAX))
    }
}

/// A thread's group in `/proc/PID/cgroup`, see cgroups(7): lines `ID:CONTROLLERS:PATH`. Of v1's hierarchies
/// that of systemd, or else of the controller `cpu`, unless the thread is in their roots.
fn path_in(text: &str, is_unified: bool) -> Option<&str> {
    let lines = || {
        text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
    };
    if is_unified {
        return lines().find(|(id, ..)| *id == "0").map(|(.., path)| path);
    }
    let of = |wanted: &str| {
        let has = |controllers: &str| controllers.split(',').any(|name| name == wanted);
        lines().find(|(_, controllers, _)| has(controllers)).map(|(.., path)| path)
    };
    let known: Vec<&str> = ["name=systemd", "cpu"].into_iter().filter_map(of).collect();
    known.iter().find(|path| **path != "/").or(known.first()).copied()
}

/// All directories of a mounted hierarchy by their inode numbers.
fn listed(mount: &Path, groups_max: usize) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let root_number = fs::metadata(mount).map(|root| std::os::unix::fs::MetadataExt::ino(&root));
    found.extend(root_number.map(|number| (number, "/".to_owned())));
    let mut open = vec![mount.to_owned()];
    while let Some(directory) = open.pop() {
        // A group that is removed meanwhile has no entries.
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            let below = path.strip_prefix(mount).unwrap_or(&path).to_string_lossy();
            if found.len() >= groups_max {
                return found;
            }
            found.insert(entry.ino(), harmless(&format!("/{below}")));
            open.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n";
    const IN_V2: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nperf_event\t0\t1\t1\n";
    const IN_V1: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nperf_event\t7\t1\t1\n";

    #[test]
    fn names_are_those_of_version_two_where_it_is_mounted() {
        let unified = |mounts| {
            let names = GroupNames::parse(mounts, IN_V2)?;
            Some((names.unified.map(|mount| mount.display().to_string()), names.are_births_told))
        };
        let told = Some((Some("/sys/fs/cgroup/unified".to_owned()), true));
        assert_eq!(unified(HYBRID), told);
        let v1 = HYBRID.lines().last().unwrap();
        assert_eq!(unified(v1), Some((None, false)));
        assert_eq!(unified("1 2 0:3 / /sys rw - sysfs sysfs rw\n"), None);
        let part = "9 8 0:38 /docker/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(unified(part), Some((None, false)), "only a part of it is seen");
        let by_v1 = GroupNames::parse(HYBRID, IN_V1).unwrap();
        assert!(by_v1.have_numbers() && !by_v1.are_births_told(), "perf has other numbers");
    }

    #[test]
    fn a_threads_group_is_that_of_the_hierarchy_that_names_it() {
        let text = "9:name=systemd:/system.slice/cron.service\n5:memory:/a\n1:cpu,cpuacct:/b\n\
            0::/system.slice/cron.service/x\n";
        assert_eq!(path_in(text, true), Some("/system.slice/cron.service/x"));
        assert_eq!(path_in(text, false), Some("/system.slice/cron.service"));
        assert_eq!(path_in("9:name=systemd:/\n1:cpu:/vms/a\n", false), Some("/vms/a"));
        assert_eq!(path_in("9:name=systemd:/\n1:cpu:/\n", false), Some("/"));
        assert_eq!(path_in("5:memory:/a\n", false), None, "that says nothing of pCPUs");
        assert_eq!(path_in("5:memory:/a\n", true), None);
    }

    #[test]
    fn groups_are_directories_by_their_inode_numbers() {
        let scratch = tempfile::tempdir().unwrap();
        let group = scratch.path().join("machine.slice/machine-qemu\\x2d1\\x2dweb.scope");
        fs::create_dir_all(&group).unwrap();
        fs::write(scratch.path().join("cgroup.procs"), "").unwrap();
        let number = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&group).unwrap());
        let found = listed(scratch.path(), GROUPS_MAX);
        assert_eq!(found[&number], "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.values().any(|path| path == "/"));
        assert_eq!(listed(scratch.path(), 2).len(), 2);
    }

    #[test]
    fn the_group_of_this_process_has_a_number_where_there_are_any() {
        let Ok(names) = GroupNames::of_host() else { return };
        let own = names.of_thread(Tid(std::process::id()));
        if names.have_numbers() {
            assert!(names.by_number().into_values().any(|path| Some(path) == own), "{own:?}");
        }
    }
}
