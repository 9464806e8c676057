//! cgroups of both versions, as far as a quota for one thread needs them.
//!
//! Version 1 has a hierarchy for the `cpu` controller alone, in which every thread has its own group
//! (`tasks`). In version 2 a process is in one group, and its threads can be in groups below that
//! only if those are `threaded` (linux: Documentation/admin-guide/cgroup-v2.rst, "Threads"): so the
//! process goes into a group of its own, and the thread into one below it.

use super::QuotaConfig;
use crate::rig::inject::InjectError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io};
use vslice_core::units::Tid;
use vslice_host::cgroup::{Hierarchy, Version};
use vslice_host::procfs;
use vslice_trace::quota::Throttling;

/// A group that was made for one thread. Dropping it puts back who is in it, and removes it.
#[derive(Debug)]
pub(super) struct Group {
    hierarchy: Hierarchy,
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
        let former = group_of(hierarchy, config.tid)?;
        let name = name();
        let group = match hierarchy.version() {
            Version::V1 => Group {
                hierarchy: hierarchy.clone(),
                pid: config.pid,
                path: former.join(name),
                process_path: None,
                former,
            },
            Version::V2 => {
                let process_path = hierarchy.mount().join(name);
                Group {
                    hierarchy: hierarchy.clone(),
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
            // To switch it on for all groups of the host would change how they share it.
            let shared = hierarchy.mount().join("cgroup.subtree_control");
            if !read(&shared)?.split_whitespace().any(|controller| controller == "cpu") {
                let what = format!("{} does not delegate the cpu controller", shared.display());
                return Err(InjectError::NoCgroup(what));
            }
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
        let missing = || InjectError::NoCgroup(format!("{} has no counters", self.path.display()));
        self.hierarchy.throttling(&self.path).ok_or_else(missing)
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
        match self.hierarchy.version() {
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
    let hierarchy = find()?;
    match hierarchy.version() {
        Version::V1 => {
            let own = nix::unistd::gettid().to_string();
            write(&hierarchy.mount().join("tasks"), &own)
        }
        // Version 2 does not divide realtime among groups.
        Version::V2 => Err(InjectError::NoCgroup("the cpu controller is in cgroup v2".to_owned())),
    }
}

/// Removes groups that killed processes of vslice have left; returns how many. They hold nobody:
/// the guests of a process end with it.
#[must_use]
pub fn sweep_stale() -> usize {
    let Ok(hierarchy) = find() else { return 0 };
    let own = Tid(std::process::id());
    let parents = [Some(hierarchy.mount().to_owned()), group_of(&hierarchy, own).ok()];
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

pub(super) fn find() -> Result<Hierarchy, InjectError> {
    Hierarchy::of_host().map_err(InjectError::NoCgroup)
}

/// The directory of the group that a thread is in.
fn group_of(hierarchy: &Hierarchy, tid: Tid) -> Result<PathBuf, InjectError> {
    let groups = hierarchy.groups_of(tid).map_err(InjectError::NoCgroup)?;
    let none = || InjectError::NoCgroup(format!("thread {tid} is in no group"));
    groups.into_iter().next().ok_or_else(none)
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
    fn only_groups_whose_maker_is_gone_are_stale() {
        assert!(!is_stale(Path::new("/sys/fs/cgroup").join(name()).as_path()));
        assert!(is_stale(Path::new("/x/vslice-rig-4194304-1-0")));
        assert!(!is_stale(Path::new("/x/user.slice")));
    }
}
