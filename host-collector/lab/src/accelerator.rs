//! Which accelerator really runs a guest here.
//!
//! That `/dev/kvm` is there does not say so: nested or emulated KVM may refuse a CPU model, or run
//! firmware and hang in a kernel. So a stock kernel is booted in it, and has a time limit.

use super::image::MicroImage;
use super::kvm_answer::{Answer, Asked};
use super::plan::{AcceleratorSetting, LabAccelerator};
use super::process::{self, ChildSpec, ProcessError, SupervisedChild};
use super::qemu::{self, GuestFiles, PROBE_LINE};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use thiserror::Error;
use vslice_host::scratch::{PrivateDir, ScratchError};

/// KVM's device.
pub const KVM: &str = "/dev/kvm";

/// The time limit for a kernel to boot under KVM. One takes about a second on hardware; 20 s were seen
/// where KVM itself was emulated, on a busy machine. A broken KVM usually fails at once, so this limit is
/// hardly ever reached; guests under TCG on a host that is emulated do not boot within any useful time.
pub const PROBE_LIMIT: Duration = Duration::from_secs(60);

const REFUSED: &str = "KVM is available but does not run a stock kernel";

/// An accelerator, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AcceleratorChoice {
    /// The accelerator.
    pub accelerator: LabAccelerator,
    /// The reason as a sentence, for the report.
    pub reason: String,
}

/// Why the plan's accelerator is not available, or could not be tested.
#[derive(Debug, Error)]
pub enum AcceleratorError {
    /// The plan wants KVM.
    #[error("the plan wants accelerator = \"kvm\", but {0}")]
    NoKvm(String),
    /// See [`ScratchError`].
    #[error(transparent)]
    Scratch(#[from] ScratchError),
}

/// Chooses the plan's accelerator. For `auto` that is KVM if it runs this image's kernel, otherwise TCG.
///
/// # Errors
/// [`AcceleratorError`], if the plan wants KVM and it does not run the kernel.
pub fn choose(
    setting: AcceleratorSetting,
    qemu: &Path,
    image: &MicroImage,
    scratch: &Path,
) -> Result<AcceleratorChoice, AcceleratorError> {
    if setting == AcceleratorSetting::Tcg {
        return Ok(tcg("the plan asks for it".to_owned()));
    }
    let before = Asked::of(qemu, image).and_then(|asked| asked.recall());
    let choice = match before {
        Some(answer) if open_kvm().is_ok() => {
            chosen(&answer, " (result stored since the last boot; `vslice doctor` tests again)")
        }
        _ => probe(qemu, image, scratch)?,
    };
    if setting == AcceleratorSetting::Kvm && choice.accelerator != LabAccelerator::Kvm {
        return Err(AcceleratorError::NoKvm(choice.reason));
    }
    Ok(choice)
}

/// Tests KVM: it is chosen if it runs this image's kernel, otherwise TCG. The reason says what happened.
///
/// # Errors
/// [`AcceleratorError::Scratch`].
pub fn probe(
    qemu: &Path,
    image: &MicroImage,
    scratch: &Path,
) -> Result<AcceleratorChoice, AcceleratorError> {
    if let Err(error) = open_kvm() {
        return Ok(tcg(format!("{KVM} cannot be used: {error}")));
    }
    let directory = PrivateDir::create(scratch)?;
    let console = directory.path().join("console.log");
    let files = GuestFiles {
        kernel: &image.kernel,
        initramfs: &image.initramfs,
        disk: Path::new(""),
        console: &console,
        qmp: None,
    };
    let spec = ChildSpec {
        title: "QEMU".to_owned(),
        program: qemu.to_owned(),
        args: qemu::probe_args(LabAccelerator::Kvm, &files),
        log: directory.path().join("qemu.log"),
        pcpu: None,
        file_bytes_max: Some(process::LOG_BYTES_MAX),
    };
    let booted = boots(&spec, &console, PROBE_LIMIT);
    if let Some(asked) = Asked::of(qemu, image) {
        asked.keep(&booted);
    }
    Ok(chosen(&booted, ""))
}

/// The choice that KVM's answer leads to; `since` is said after what it was.
fn chosen(answer: &Answer, since: &str) -> AcceleratorChoice {
    match answer {
        Ok(took) => AcceleratorChoice {
            accelerator: LabAccelerator::Kvm,
            reason: format!("a stock kernel boots under KVM in {:.1} s{since}", took.as_secs_f64()),
        },
        Err(what) => tcg(format!("{REFUSED}: {what}{since}")),
    }
}

fn tcg(reason: String) -> AcceleratorChoice {
    AcceleratorChoice { accelerator: LabAccelerator::Tcg, reason }
}

/// Checks that `/dev/kvm` exists and can be opened.
///
/// # Errors
/// Fails if it cannot be opened.
pub fn open_kvm() -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(KVM).map(drop)
}

/// Starts a guest and waits for its line; returns how long that took, or what happened instead.
fn boots(spec: &ChildSpec, console: &Path, limit: Duration) -> Answer {
    let begin = Instant::now();
    let mut child = SupervisedChild::start(spec).map_err(|error| error.to_string())?;
    loop {
        // Asked before the console is read, so that the last words of a guest that ended count.
        let ended = child.check();
        if fs::read(console).is_ok_and(|bytes| has_probe_line(&bytes)) {
            child.wait_or_kill(Duration::from_secs(1));
            return Ok(begin.elapsed());
        }
        match ended {
            Ok(()) if begin.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            Ok(()) => {
                let console =
                    process::last_line(console).unwrap_or_else(|| "it printed nothing".to_owned());
                return Err(format!(
                    "no output from the guest's kernel within {} s: {console}",
                    limit.as_secs()
                ));
            }
            Err(ProcessError::Ended { how, last_words, .. }) => {
                let cause = process::first_complaint(&spec.log).unwrap_or(last_words);
                return Err(format!("QEMU {how}: {cause}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn has_probe_line(console: &[u8]) -> bool {
    String::from_utf8_lossy(console).lines().any(|line| line.trim_end() == PROBE_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn run(script: &str, limit: Duration) -> Answer {
        let directory = tempfile::tempdir().expect("scratch");
        let console = directory.path().join("console");
        let spec = ChildSpec {
            title: "QEMU".to_owned(),
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".into(), script.replace("CONSOLE", &console.to_string_lossy()).into()],
            log: directory.path().join("log"),
            pcpu: None,
            file_bytes_max: None,
        };
        boots(&spec, &console, limit)
    }

    #[test]
    fn a_guest_that_prints_the_line_runs_and_another_one_says_what_happened() {
        let long = Duration::from_secs(60);
        assert!(
            run("printf 'vslice-probe: guest is up\\r\\n' > CONSOLE; exec sleep 600", long).is_ok()
        );
        assert!(run("echo 'vslice-probe: guest is up' > CONSOLE", long).is_ok());
        assert_eq!(
            run(
                "echo 'warning: old'; echo 'error: failed to set MSR 0x10a'; echo Aborted; exit 1",
                long
            ),
            Err("QEMU ended with status 1: error: failed to set MSR 0x10a".to_owned())
        );
        let hangs = run("exec sleep 600", Duration::ZERO);
        assert_eq!(
            hangs,
            Err("no output from the guest's kernel within 0 s: it printed nothing".to_owned())
        );
        let quoted = run("echo 'not vslice-probe: guest is up' > CONSOLE; exit 0", long);
        assert!(quoted.is_err_and(|what| what.starts_with("QEMU ended with status 0")));
    }
}
