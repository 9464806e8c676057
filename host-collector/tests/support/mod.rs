//! What tests of several files need: processes that end with their test, and a libvirt of their own.

use libtest_mimic::Failed;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_lab::tools;

const NAP: Duration = Duration::from_millis(100);
/// How long a step of a test may take that waits for another process.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(60);

pub(crate) type Outcome = Result<(), Failed>;

/// What libvirt keeps, each replaced by an empty directory in this process's namespace.
const LIBVIRTS: [&str; 5] =
    ["/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"];

/// Everything as this user, without what needs a daemon or control groups.
const QEMU_CONF: &str = r#"user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"#;

/// Goes into a mount namespace with libvirt's directories empty, or says why not.
pub(crate) fn libvirt_missing() -> Option<String> {
    let tools = ["libvirtd", "virsh"];
    if let Some(tool) = tools.into_iter().find(|tool| tools::find(tool).is_none()) {
        return Some(format!("there is no {tool}"));
    }
    if !geteuid().is_root() {
        return Some("libvirt's system daemon needs root".to_owned());
    }
    let mounted = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )?;
        for directory in LIBVIRTS {
            let _may_be_there = fs::create_dir_all(directory);
            mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        }
        Ok(())
    };
    mounted().err().map(|error| format!("no mount namespace of its own: {error}"))
}

/// An outcome of a condition, with what to say of it.
pub(crate) fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// Waits until something is so.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Failed> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            return Err(format!("{what}: not within {} s", limit.as_secs()).into());
        }
        sleep(NAP);
    }
}

/// A process that is ended with the test, whichever way that ends.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _may_have_ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The daemon in this process's namespace, once it answers; `dir` gets its log.
pub(crate) fn libvirtd(dir: &Path) -> Result<Guarded, Failed> {
    fs::write("/etc/libvirt/qemu.conf", QEMU_CONF)?;
    let log = fs::File::options().create(true).append(true).open(dir.join("libvirtd.log"))?;
    let mut command = Command::new(tools::find("libvirtd").ok_or("libvirtd was there")?);
    command.arg("--pid-file").arg(dir.join("libvirtd.pid"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let daemon = Guarded(command.spawn()?);
    let said = wait_for("libvirtd", STEP_LIMIT, || virsh(&["list"]).ok());
    said.map(|_| daemon)
}

/// What this command of libvirt's client prints.
pub(crate) fn virsh(args: &[&str]) -> Result<String, Failed> {
    let output = Command::new("virsh").args(["--connect", "qemu:///system"]).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success(), || format!("virsh {}: {said}", args.join(" ")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
