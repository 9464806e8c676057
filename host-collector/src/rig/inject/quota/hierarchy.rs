//! cgroups of both versions, as far as a quota for one thread needs them.
//!
//! Version 1 has a hierarchy for the `cpu` controller alone, in which every thread has its own group
//! (`tasks`). In version 2 a process is in one group, and its threads can be in groups below that
//! only if those are `threaded` (linux: Documentation/admin-guide/cgroup-v2.rst, "Threads"): so the
//! process goes into a group of its own, and the thread into one below it.

use super::{QuotaConfig, Throttling};
use crate::rig::inject::InjectError;
use crate::units::Tid;
use crate::vmm::procfs;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Which cgroups have the `cpu` controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own.
    V1,
    /// The unified one.
    V2,
}

/// Where the `cpu` controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    version: Version,
    mount: PathBuf,
}

impl Hierarchy {
    /// That of this host: version 1 if the controller is mounted there, as it can be in one place
    /// only.
    ///
    /// # Errors
    /// [`InjectError::NoCgroup`].
    pub fn find() -> Result<Hierarchy, InjectError> {
        let path = Path::new("/proc/self/mounts");
        let mounts = read(path)?;
        let found = find_in(&mounts).ok_or_else(|| {
            InjectError::NoCgroup("no cgroup file system is mounted in /sys/fs/cgroup".to_owned())
        })?;
        if found.version == Version::V2 {
            let controllers = read(&found.mount.join("cgroup.controllers"))?;
            if !controllers.split_whitespace().any(|name| name == "cpu") {
                let mount = found.mount.display();
                return Err(InjectError::NoCgroup(format!("{mount} has no cpu controller")));
            }
        }
        Ok(found)
    }

    /// The directory of the group that a thread is in.
    fn group_of(&self, pid: Tid, tid: Tid) -> Result<PathBuf, InjectError> {
        let path = PathBuf::from(format!("/proc/{pid}/task/{tid}/cgroup"));
        let text = read(&path)?;
        let group = group_in(&text, self.version)
            .ok_or_else(|| InjectError::NoCgroup(format!("{} has no cpu line", path.display())))?;
        Ok(self.mount.join(group.trim_start_matches('/')))
    }
}

/// Finds the controller in `/proc/self/mounts`: device, directory, type, options.
fn find_in(mounts: &str) -> Option<Hierarchy> {
    let find = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, mount, found_kind, options, ..] = fields[..] else { return None };
            let has_option = option.is_empty() || options.split(',').any(|found| found == option);
            (found_kind == kind && has_option).then(|| PathBuf::from(mount))
        })
    };
    find("cgroup", "cpu")
        .map(|mount| Hierarchy { version: Version::V1, mount })
        .or_else(|| find("cgroup2", "").map(|mount| Hierarchy { version: Version::V2, mount }))
}

/// The group in `/proc/PID/task/TID/cgroup`, lines of `number:controllers:group`.
fn group_in(text: &str, version: Version) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match version {
            Version::V1 => controllers.split(',').any(|name| name == "cpu"),
            Version::V2 => number == "0",
        };
        is_it.then_some(group)
    })
}

/// A group that was made for one thread. Dropping it puts back who is in it, and removes it.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    pid: Tid,
    /// The group with the quota.
    path: PathBuf,
    /// Version 2: the group of the process, above that.
    process_path: Option<PathBuf>,
    /// Where the thread, in version 2 the process, was.
    former: PathBuf,
}

impl Group {
    pub(super) fn create(
        hierarchy: &Hierarchy,
        config: &QuotaConfig,
    ) -> Result<Group, InjectError> {
        let former = hierarchy.group_of(config.pid, config.tid)?;
        let name = name();
        let group = match hierarchy.version {
            Version::V1 => Group {
                version: Version::V1,
                pid: config.pid,
                path: former.join(name),
                process_path: None,
                former,
            },
            Version::V2 => {
                let process_path = hierarchy.mount.join(name);
                Group {
                    version: Version::V2,
                    pid: config.pid,
                    path: process_path.join("vcpu"),
                    process_path: Some(process_path),
                    former,
                }
            }
        };
        group.prepare(hierarchy, config)?;
        Ok(group)
    }

    fn prepare(&self, hierarchy: &Hierarchy, config: &QuotaConfig) -> Result<(), InjectError> {
        let (quota_us, period_us) = (microseconds(config.quota), microseconds(config.period));
        if let Some(process_path) = &self.process_path {
            // Mostly so already; systemd needs it itself, so that it is not undone.
            write(&hierarchy.mount.join("cgroup.subtree_control"), "+cpu")?;
            make(process_path)?;
            make(&self.path)?;
            write(&process_path.join("cgroup.procs"), &self.pid.to_string())?;
            write(&self.path.join("cgroup.type"), "threaded")?;
            write(&process_path.join("cgroup.subtree_control"), "+cpu")?;
            return write(&self.path.join("cpu.max"), &format!("{quota_us} {period_us}"));
        }
        make(&self.path)?;
        write(&self.path.join("cpu.cfs_period_us"), &period_us.to_string())?;
        write(&self.path.join("cpu.cfs_quota_us"), &quota_us.to_string())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn enter(&self, tid: Tid) -> Result<(), InjectError> {
        write(&self.path.join(self.threads_file()), &tid.to_string())
    }

    pub(super) fn throttling(&self) -> Result<Throttling, InjectError> {
        Ok(parse_stat(&read(&self.path.join("cpu.stat"))?))
    }

    /// Puts back who is in the group: threads that the thread has made are there as well.
    pub(super) fn leave(&self) -> Result<(), InjectError> {
        if self.process_path.is_some() {
            return write(&self.former.join("cgroup.procs"), &self.pid.to_string());
        }
        for tid in read(&self.path.join("tasks"))?.lines() {
            match write(&self.former.join("tasks"), tid) {
                Err(InjectError::Cgroup { source, .. })
                    if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn threads_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What has ended meanwhile cannot be put back and need not be: an empty group can go.
        let _ = self.leave();
        let _ = fs::remove_dir(&self.path);
        if let Some(process_path) = &self.process_path {
            let _ = fs::remove_dir(process_path);
        }
    }
}

/// Puts the calling thread into the root group of a version 1 hierarchy.
pub(in crate::rig::inject) fn own_thread_to_root() -> Result<(), InjectError> {
    let hierarchy = Hierarchy::find()?;
    match hierarchy.version {
        Version::V1 => {
            let own = nix::unistd::gettid().to_string();
            write(&hierarchy.mount.join("tasks"), &own)
        }
        // Version 2 does not divide realtime among groups.
        Version::V2 => Err(InjectError::NoCgroup("the cpu controller is in version 2".to_owned())),
    }
}

/// Removes groups that killed processes of vslice have left; returns how many. They hold nobody:
/// the guests of a process end with it.
#[must_use]
pub fn sweep_stale() -> usize {
    let Ok(hierarchy) = Hierarchy::find() else { return 0 };
    let own = Tid(std::process::id());
    let parents = [Some(hierarchy.mount.clone()), hierarchy.group_of(own, own).ok()];
    let mut removed_count = 0;
    for parent in parents.into_iter().flatten() {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_stale(path)) {
            let _ = fs::remove_dir(path.join("vcpu"));
            removed_count += usize::from(fs::remove_dir(&path).is_ok());
        }
    }
    removed_count
}

/// The name of a group: who made it, and which of its groups it is.
fn name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let own = Tid(std::process::id());
    let start = procfs::start_ticks(own).map_or(0, |start| start.0);
    format!("vslice-rig-{own}-{start}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn is_stale(path: &Path) -> bool {
    let owner = path.file_name().and_then(|name| {
        let mut parts = name.to_str()?.strip_prefix("vslice-rig-")?.split('-');
        let pid = Tid(parts.next()?.parse().ok()?);
        Some((pid, procfs::StartTicks(parts.next()?.parse().ok()?)))
    });
    owner.is_some_and(|(pid, start)| !procfs::is_alive(pid, start))
}

/// Reads `cpu.stat` of either version; what it does not say is 0.
fn parse_stat(text: &str) -> Throttling {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse::<u64>().ok())
    };
    Throttling {
        period_count: value("nr_periods").unwrap_or(0),
        throttled_count: value("nr_throttled").unwrap_or(0),
        throttled_ns: value("throttled_time")
            .or_else(|| value("throttled_usec").map(|us| us * 1000))
            .unwrap_or(0),
    }
}

fn microseconds(duration: Duration) -> u128 {
    duration.as_micros()
}

fn read(path: &Path) -> Result<String, InjectError> {
    fs::read_to_string(path).map_err(cgroup_error(path, "read"))
}

fn write(path: &Path, text: &str) -> Result<(), InjectError> {
    fs::write(path, text).map_err(cgroup_error(path, "written"))
}

fn make(path: &Path) -> Result<(), InjectError> {
    fs::create_dir(path).map_err(cgroup_error(path, "made"))
}

fn cgroup_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> InjectError {
    let path = path.to_owned();
    move |source| InjectError::Cgroup { path, action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_where_it_is_mounted() {
        let v1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                  cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
                  cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                  cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let mount = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(find_in(v1), Some(Hierarchy { version: Version::V1, mount }));
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";
        let mount = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(find_in(v2), Some(Hierarchy { version: Version::V2, mount }));
        assert_eq!(find_in("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_threads_group_is_the_one_of_its_version() {
        let text = "4:memory:/a\n3:cpuset:/b\n2:cpuacct,cpu:/c:d\n0::/e\n";
        assert_eq!(group_in(text, Version::V1), Some("/c:d"));
        assert_eq!(group_in(text, Version::V2), Some("/e"));
        assert_eq!(group_in("3:cpuset:/b\n", Version::V1), None);
    }

    #[test]
    fn both_versions_of_cpu_stat_are_read_in_nanoseconds() {
        let expected = Throttling { period_count: 40, throttled_count: 38, throttled_ns: 5_000 };
        let v1 = "nr_periods 40\nnr_throttled 38\nthrottled_time 5000\nnr_bursts 0\n";
        let v2 = "usage_usec 7\nnr_periods 40\nnr_throttled 38\nthrottled_usec 5\n";
        assert_eq!(parse_stat(v1), expected);
        assert_eq!(parse_stat(v2), expected);
    }

    #[test]
    fn only_groups_whose_maker_is_gone_are_stale() {
        assert!(!is_stale(Path::new("/sys/fs/cgroup").join(name()).as_path()));
        assert!(is_stale(Path::new("/x/vslice-rig-4194304-1-0")));
        assert!(!is_stale(Path::new("/x/user.slice")));
    }
}
